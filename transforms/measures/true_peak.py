"""True peak: the largest value of the continuous signal, by annex 2 of ITU-R BS.1770-4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.meters import Measure, Reading, decibels

MEASURES = (
    Measure(
        "loudness.true_peak",
        "float",
        "dBTP",
        "Largest sample, or value between two samples, of any channel. From 96 kHz on, two values "
        "between samples are computed instead of four; from 192 kHz on, none.",
    ),
    Measure("loudness.true_peak_second", "float", "s", "Place of the true peak."),
)

#: The first two phases of the filter in annex 2, in units of 2⁻¹³; the other two are their mirror
#: images. The values of the phases lie 1/8, 3/8, 5/8 and 7/8 after a sample.
_PHASES = 2.0**-13 * np.array(
    [
        [14, 90, -161, 272, -487, 1125, 7964, -838, 390, -218, 122, -68],
        [-239, 240, -424, 730, -1364, 3810, 6388, -1641, 832, -477, 271, -155],
    ]
)
_TAPS = 12
#: Number of taps before the sample that a value follows, and after it.
_TAPS_BEFORE, _TAPS_AFTER = 5, 6
_HALF_RATE_HZ, _FULL_RATE_HZ = 96_000, 192_000
_SEGMENT_FRAMES = 1024
#: Room for the rounding of bounds.
_MARGIN = 1.0001
#: Values in between are measured; below is silence, and above float32 overflows.
_SMALLEST, _LARGEST = 1e-30, 1e30

_Array = npt.NDArray[np.float32]


@dataclass(slots=True)
class TruePeakMeter:
    """A meter of the true peak; see :data:`MEASURES`.

    A segment is interpolated only if its bound (:class:`_Interpolator`) reaches the peak so far. So
    a segment that is skipped has no peak as high, and does not change the result.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    peak, frame
        Largest absolute value, and the first frame that it belongs to.
    """

    shape: Shape
    peak: float = 0.0
    frame: int = 0

    def add(self, block: Block) -> None:
        """Add the next block."""
        first, samples = _surrounded(block)
        interpolator = _interpolator(self.shape.rate_hz)
        peaks = _segment_peaks(samples, _TAPS - 1)
        if peaks.max() > _LARGEST:
            samples, peaks = samples.clip(-_LARGEST, _LARGEST), peaks.clip(max=_LARGEST)
        if peaks.max() * interpolator.gain < max(self.peak, _SMALLEST):
            return
        bounds = interpolator.bounds(samples, peaks)
        for place in np.argsort(-bounds, axis=None, kind="stable"):
            channel, segment = divmod(int(place), bounds.shape[1])
            if bounds[channel, segment] < max(self.peak, _SMALLEST):
                break
            start = segment * _SEGMENT_FRAMES
            stop = start + _SEGMENT_FRAMES + _TAPS - 1
            peak, frame = interpolator.peak(samples[channel, start:stop])
            self._keep(peak, max(0, first + start + frame))

    def merge(self, later: TruePeakMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self._keep(later.peak, later.frame)

    def _keep(self, peak: float, frame: int) -> None:
        if (peak, -frame) > (self.peak, -self.frame):
            self.peak, self.frame = peak, frame

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name; ``None`` for silence."""
        peak = decibels(self.peak)
        return {
            "loudness.true_peak": peak,
            "loudness.true_peak_second": None if peak is None else self.frame / self.shape.rate_hz,
        }


def _surrounded(block: Block) -> tuple[int, _Array]:
    """Return the first frame to measure, and all samples that its block's values depend on.

    Zeros surround the recording. The values before its first frame are measured, too: those
    farther from the recording are always below the largest sample.
    """
    first, stop, length = block.before, block.before + block.frames, block.around.shape[1]
    if not first:
        first = -1
    begin, end = first - _TAPS_BEFORE, stop + _TAPS_AFTER
    samples = block.around[:, max(0, begin) : end]
    zeros = max(0, -begin), max(0, end - length)
    if any(zeros):
        samples = np.pad(samples, ((0, 0), zeros))
    return block.start + first - block.before, samples


def _segment_peaks(values: _Array, overlap: int) -> npt.NDArray[np.float64]:
    """Return the largest absolute value of each segment, with some values of the next."""
    starts = np.arange(0, values.shape[1] - overlap, _SEGMENT_FRAMES)
    # Every other part is a segment. The parts in between are not used.
    edges = np.stack([starts, starts + _SEGMENT_FRAMES + overlap], axis=1).ravel()[:-1]
    highest = np.maximum.reduceat(values, edges, axis=1)[:, ::2]
    lowest = np.minimum.reduceat(values, edges, axis=1)[:, ::2]
    return np.maximum(highest, -lowest).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Interpolator:
    """The values at and after a sample, from the samples around it.

    A filter is the sum of a straight line between two samples, and of a filter of the second
    differences. So no value exceeds ``line`` times the largest sample plus ``curve`` times the
    largest second difference. Music is smooth at its peaks: few segments reach the peak so far.

    Attributes
    ----------
    taps : float32 [values, 12]
        Filters; the first returns the sample itself.
    gain
        Largest possible value for samples of at most 1.
    line, curve
        Factors of the bound.
    """

    taps: _Array
    gain: float
    line: float
    curve: float

    def bounds(self, samples: _Array, peaks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return a bound of each segment's true peak, float64 [channels, segments]."""
        curves = _segment_peaks(np.diff(samples, 2, axis=1), _TAPS - 3)
        return _MARGIN * (self.line * peaks + self.curve * curves)

    def peak(self, samples: _Array) -> tuple[float, int]:
        """Return the true peak of a segment, and its first frame."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, _TAPS).T
        # Without a copy, NumPy would multiply without BLAS.
        values = np.abs(self.taps @ np.ascontiguousarray(windows)).max(axis=0)
        frame = int(values.argmax())
        return float(values[frame]), frame


@cache
def _interpolator(rate_hz: int) -> _Interpolator:
    mirrored = _PHASES[::-1, ::-1]
    taps = np.eye(1, _TAPS, _TAPS_AFTER)
    if rate_hz < _HALF_RATE_HZ:
        taps = np.concatenate([taps, _PHASES, mirrored])
    elif rate_hz < _FULL_RATE_HZ:
        taps = np.concatenate([taps, _PHASES[1:], mirrored[:1]])
    taps = taps[:, ::-1]  # In the recommendation, the newest sample is the first.
    line, curves = _line_and_curves(taps)
    return _Interpolator(
        taps.astype(np.float32),
        _MARGIN * float(np.abs(taps).sum(axis=1).max()),
        float(np.abs(line).sum(axis=1).max()),
        float(np.abs(curves).sum(axis=1).max()),
    )


def _line_and_curves(
    taps: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Divide filters into two taps at the middle, and taps of second differences.

    The two taps have the sum and the first moment of the filter.
    """
    moment = taps @ (np.arange(_TAPS) - _TAPS_BEFORE)
    line = np.stack([taps.sum(axis=1) - moment, moment], axis=1)
    rest = taps.copy()
    rest[:, _TAPS_BEFORE : _TAPS_AFTER + 1] -= line
    return line, rest.cumsum(axis=1).cumsum(axis=1)
