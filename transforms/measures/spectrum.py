"""Spectrum: how high the sound reaches, where its centre is, and how flat it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.histograms import count, merge, quantile
from melmill.transforms.measures.meters import Measure, Reading

MEASURES = (
    Measure(
        "origin.bandwidth",
        "float",
        "Hz",
        "Highest frequency that a tenth of the frames with sound reach: a band of 172 Hz above "
        "−105 dBFS, and at most 95 dB below the loudest. It is low after a lossy codec or a lower "
        "sample rate, and in quiet recordings.",
    ),
    Measure("origin.bandwidth_share", "float", "", "The bandwidth over half the sample rate."),
    Measure("spectrum.centroid", "float", "Hz", "Median of the frames' centres of power."),
    Measure(
        "spectrum.flatness",
        "float",
        "",
        "Median of the frames' geometric mean of the power over the arithmetic mean: near 0 for "
        "tones, 1 for white noise.",
    ),
)

#: Frequency resolution: the number of samples is a power of two.
_RESOLUTION_HZ = 10.8
_BINS_PER_BAND = 16
_BAND_DBFS = -105.0
#: Bands this far below the loudest are the window's leakage.
_BELOW_LOUDEST_DB = 95.0
_REACHED_SHARE = 0.1
_SILENT_POWER = 1e-9
#: A frame starts every four lengths.
_FRAME_STEP = 4
_FLATNESS_STEPS = 1000
#: Power of samples that are absurdly large; sums of all bins stay finite.
_LARGEST = 1e30


@dataclass(slots=True)
class SpectrumMeter:
    """A meter of the spectrum of a quarter of the samples; see :data:`MEASURES`.

    Frames take turns among the channels: a mix could cancel what the channels hold.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    reaches, centroids, flatness
        Number of frames by the highest band with sound, by the centre's bin, and by the flatness in
        thousandths.
    """

    shape: Shape
    reaches: dict[int, int] = field(default_factory=dict)
    centroids: dict[int, int] = field(default_factory=dict)
    flatness: dict[int, int] = field(default_factory=dict)

    @property
    def frame_samples(self) -> int:
        """Number of samples in a frame."""
        return 1 << max(6, round(math.log2(self.shape.rate_hz / _RESOLUTION_HZ)))

    def add(self, block: Block) -> None:
        """Add the next block."""
        frames = self._frames(block)
        if len(frames):
            powers = power_spectra(frames)
            powers = powers[powers[:, 1:].sum(axis=1) > _SILENT_POWER, 1:]
            if len(powers):
                self._count(powers)

    def _frames(self, block: Block) -> npt.NDArray[np.float32]:
        length = self.frame_samples
        step, channels = _FRAME_STEP * length, self.shape.channels
        starts = range(0, block.frames - length + 1, step)
        # The turns go on in the next block.
        first = block.start // self.shape.block_frames * -(-self.shape.block_frames // step)
        planes = [block.samples[(first + i) % channels] for i in range(len(starts))]
        cut = [plane[at : at + length] for plane, at in zip(planes, starts, strict=True)]
        return np.array(cut, np.float32)

    def _count(self, powers: npt.NDArray[np.float32]) -> None:
        """Count frames by their power in each bin from the second on: an offset is no sound."""
        bands = powers.reshape(len(powers), -1, _BINS_PER_BAND).sum(axis=2)
        loudest = bands.max(axis=1, keepdims=True)
        least = np.maximum(10 ** (_BAND_DBFS / 10), loudest * 10 ** (-_BELOW_LOUDEST_DB / 10))
        numbers = np.arange(1, bands.shape[1] + 1)
        reaches = (numbers * (bands > least)).max(axis=1)
        bins = np.arange(1, powers.shape[1] + 1)
        total = powers.sum(axis=1, dtype=np.float64)
        centroids = np.rint(np.einsum("fb,b->f", powers, bins, dtype=np.float64) / total)
        powers = np.maximum(powers, np.finfo(np.float32).tiny)
        flatness = np.exp(np.log(powers).mean(axis=1)) / powers.mean(axis=1)
        count(self.reaches, reaches.tolist())
        count(self.centroids, centroids.astype(int).tolist())
        count(self.flatness, np.rint(_FLATNESS_STEPS * flatness).astype(int).tolist())

    def merge(self, later: SpectrumMeter) -> None:
        """Add what another meter read from the blocks after these."""
        merge(self.reaches, later.reaches)
        merge(self.centroids, later.centroids)
        merge(self.flatness, later.flatness)

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name; ``None`` for silence."""
        bin_hz = self.shape.rate_hz / self.frame_samples
        reach = quantile(self.reaches, 1 - _REACHED_SHARE)
        centroid, flatness = quantile(self.centroids, 0.5), quantile(self.flatness, 0.5)
        bandwidth = None if reach is None else reach * _BINS_PER_BAND * bin_hz
        return {
            "origin.bandwidth": bandwidth,
            "origin.bandwidth_share": (
                None if bandwidth is None else bandwidth / (self.shape.rate_hz / 2)
            ),
            "spectrum.centroid": None if centroid is None else centroid * bin_hz,
            "spectrum.flatness": None if flatness is None else flatness / _FLATNESS_STEPS,
        }


def power_spectra(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the power of each frequency, so that all of a frame add up to its mean square.

    Parameters
    ----------
    frames : float32 [frames, samples]

    Returns
    -------
    float32 [frames, samples / 2 + 1]

    Examples
    --------
    >>> sine = np.sin(np.pi / 2 * np.arange(64, dtype=np.float32))[None]
    >>> round(float(power_spectra(sine).sum()), 3), int(power_spectra(sine).argmax())
    (0.5, 16)
    """
    from scipy.fft import rfft  # imported here, because few processes need it

    with np.errstate(over="ignore", invalid="ignore"):
        spectra = rfft(frames * _window(frames.shape[1]), axis=1)
        powers = np.square(spectra.real) + np.square(spectra.imag)
    finite: npt.NDArray[np.float32] = np.nan_to_num(powers, copy=False, posinf=_LARGEST)
    return finite


@cache
def _window(samples: int) -> npt.NDArray[np.float32]:
    """Return the window of Hann, scaled so that powers add up to the mean square."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)
    scale = np.sqrt(2 / (samples * np.square(window).sum()))
    scaled: npt.NDArray[np.float32] = (window * scale).astype(np.float32)
    return scaled
