"""The spectrogram of a picture: levels in dBFS of bands, linear or logarithmic in frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Shape

Floats = npt.NDArray[np.float32]

#: Lowest frequency of logarithmic bands.
_LOWEST_HZ = 20.0
#: Length of a window, rounded to a power of two.
_WINDOW_SECONDS = 0.046
_SMALLEST_WINDOW = 256
#: Largest number of windows in a column: in hours of sound, more of them would not change the mean.
_MOST_WINDOWS = 96
#: Largest number of samples that are transformed at once.
_BATCH_SAMPLES = 1 << 19


@dataclass(frozen=True, slots=True)
class Bands:
    """The bands of a spectrogram, from 0 Hz (logarithmic: 20 Hz) to half the sample rate.

    Attributes
    ----------
    count
        Number of bands.
    scale
        ``log``: all bands are equally many octaves wide. ``linear``: equally many hertz.

    Examples
    --------
    >>> Bands(4, "linear").edges_hz(8_000).tolist()
    [0.0, 1000.0, 2000.0, 3000.0, 4000.0]
    """

    count: int = 192
    scale: Literal["log", "linear"] = "log"

    def edges_hz(self, rate_hz: int) -> npt.NDArray[np.float64]:
        """Return the edges: float64 [count + 1]."""
        if self.scale == "linear":
            return np.linspace(0, rate_hz / 2, self.count + 1)
        return np.geomspace(_LOWEST_HZ, rate_hz / 2, self.count + 1)

    def centres_hz(self, rate_hz: int) -> npt.NDArray[np.float64]:
        """Return the centres on the scale: float64 [count]."""
        low, high = self.edges_hz(rate_hz)[:-1], self.edges_hz(rate_hz)[1:]
        centres: npt.NDArray[np.float64] = (low + high) / 2
        if self.scale == "log":
            centres = np.sqrt(low * high)
        return centres

    def bins(self, rate_hz: int, window: int) -> npt.NDArray[np.int64]:
        """Return the first and the end of each band's bins: int64 [2 * count].

        A band has the bins whose frequency is in it; if there are none, the bin that is nearest to
        its centre.
        """
        edges = np.ceil(self.edges_hz(rate_hz) * window / rate_hz).astype(np.int64)
        edges[-1] = window // 2 + 1
        nearest = np.rint(self.centres_hz(rate_hz) * window / rate_hz).astype(np.int64)
        is_empty = edges[:-1] >= edges[1:]
        first = np.where(is_empty, nearest, edges[:-1])
        bins = np.stack([first, np.where(is_empty, nearest + 1, edges[1:])], axis=1)
        return bins.ravel().astype(np.int64)


def window_frames(rate_hz: int) -> int:
    """Return the length of a window: the power of two nearest to 46 ms, at least 256 frames.

    >>> [window_frames(rate) for rate in (500, 8_000, 44_100, 48_000, 192_000)]
    [256, 512, 2048, 2048, 8192]
    """
    return max(_SMALLEST_WINDOW, 1 << round(math.log2(rate_hz * _WINDOW_SECONDS)))


class Spectrogram:
    """The levels of columns.

    The windows w of a column have N frames and the form of Hann. Their centres are spread evenly
    over the column: N/2 frames apart or less, but at most 96 windows in a column. Before the
    recording's start and after its end there are zeros. The power of bin k in a window with the
    samples x is

        P[k] = (2 |Σ x[n] w[n] exp(−2πi kn/N)| / Σ w[n])²,

    without the factor 2 for k = 0 and k = N/2. It is averaged over the windows of the column, and
    over the channels. The level of a band is 10 log10 of its largest P. So a full-scale sine reads
    0 dB in its band: at most 1.5 dB less if its frequency lies between two bins.

    Parameters
    ----------
    borders : int64 [columns + 1]
        First frame of each column, and the end of the last.
    shape
        Sample rate and number of channels.
    frames
        Length of the recording.
    bands
        Number and scale of the bands.
    channel
        Channel to draw; ``None`` for all.

    Attributes
    ----------
    first_frame, stop_frame
        Frames that must be added, in order.
    levels_dbfs : float32 [bands, columns]
        The levels, of complete columns; −∞ for silence.
    complete
        Number of complete columns.
    """

    def __init__(
        self,
        borders: npt.NDArray[np.int64],
        shape: Shape,
        frames: int,
        bands: Bands,
        channel: int | None = None,
    ) -> None:
        self._borders, self._channel = borders, channel
        self._size = window_frames(shape.rate_hz)
        self._window = np.hanning(self._size + 1)[:-1].astype(np.float32)
        self._bins = bands.bins(shape.rate_hz, self._size)
        self._gains = self._bin_gains()
        half = self._size // 2
        self.first_frame = max(0, int(borders[0]) - half)
        self.stop_frame = min(frames, int(borders[-1]) + half)
        self.levels_dbfs = np.full((bands.count, len(borders) - 1), -np.inf, np.float32)
        self.complete = 0
        channels = shape.channels if channel is None else 1
        self._most = max(1, _BATCH_SAMPLES // (self._size * channels))
        # The samples from a frame on that future windows need; before frame 0 there are zeros.
        self._start = int(borders[0]) - half
        self._samples = np.zeros((channels, self.first_frame - self._start), np.float32)
        self._done, self._power = 0, np.zeros(half + 1)

    def _bin_gains(self) -> npt.NDArray[np.float64]:
        gains = np.full(self._size // 2 + 1, 2 / self._window.sum(dtype=np.float64))
        gains[[0, -1]] /= 2
        powers: npt.NDArray[np.float64] = np.square(gains)
        return powers

    def add(self, samples: Floats, first: int) -> None:
        """Add the next frames, float32 [frames, channels]; `first` is the number of the first."""
        chosen = samples if self._channel is None else samples[:, [self._channel]]
        self._samples = np.concatenate([self._samples, chosen.T], axis=1)
        self._draw()

    def finish(self) -> None:
        """Draw the columns whose windows reach beyond the last frame: zeros follow it."""
        self._samples = np.pad(self._samples, ((0, 0), (0, self._size)))
        self._draw()

    def _draw(self) -> None:
        while self.complete < len(self._borders) - 1:
            count = self._count()
            numbers = np.arange(self._done, min(count, self._done + self._most))
            offsets = self._first_frames(numbers) - self._start
            offsets = offsets[offsets + self._size <= self._samples.shape[1]]
            if not len(offsets):
                break
            self._power += self._powers(offsets)
            self._done += len(offsets)
            if self._done == count:
                self._end_column(count)
        self._drop()

    def _count(self) -> int:
        """Return the number of windows in the next column."""
        width = int(self._borders[self.complete + 1] - self._borders[self.complete])
        return min(-(-width // (self._size // 2)), _MOST_WINDOWS)

    def _first_frames(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first frames of windows in the next column."""
        start, stop = self._borders[self.complete : self.complete + 2]
        count = self._count()
        centres = start + (2 * numbers + 1) * (stop - start) // (2 * count)
        frames: npt.NDArray[np.int64] = centres - self._size // 2
        return frames

    def _powers(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the sum of the powers of some windows: float64 [bins]."""
        from scipy.fft import rfft  # imported here, because few processes need it

        windows = np.lib.stride_tricks.sliding_window_view(self._samples, self._size, axis=1)
        spectra = rfft(windows[:, offsets] * self._window, axis=2)
        powers = np.square(spectra.real) + np.square(spectra.imag)
        total: npt.NDArray[np.float64] = powers.sum(axis=(0, 1), dtype=np.float64)
        return total / len(self._samples)

    def _end_column(self, count: int) -> None:
        powers = np.append(self._power * self._gains / count, 0)  # a band may end at the last bin
        with np.errstate(divide="ignore"):
            levels = 10 * np.log10(np.maximum.reduceat(powers, self._bins)[::2])
        self.levels_dbfs[:, self.complete] = levels
        self.complete += 1
        self._done = 0
        self._power[:] = 0

    def _drop(self) -> None:
        """Forget the samples before the next window."""
        if self.complete == len(self._borders) - 1:
            return
        next_frame = int(self._first_frames(np.array([self._done]))[0])
        dropped = min(next_frame - self._start, self._samples.shape[1])
        self._samples = self._samples[:, dropped:].copy()
        self._start += dropped
