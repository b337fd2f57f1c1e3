"""Level: peak, RMS, denormals, offset, noise floor, silence, sound at the very start and end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.histograms import count, merge, quantile
from melmill.transforms.measures.meters import Measure, Reading, decibels, exact, inexact
from melmill.transforms.measures.runs import Runs

MEASURES = (
    Measure("level.peak", "float", "dBFS", "Largest sample of any channel."),
    Measure("level.peak_second", "float", "s", "Place of the largest sample."),
    Measure("level.rms", "float", "dBFS", "Root mean square over all channels."),
    Measure("level.crest", "float", "dB", "Peak minus RMS."),
    Measure(
        "level.denormals",
        "int",
        "",
        "Number of samples that are not 0, but closer to 0 than 2⁻¹²⁶: 0 in integer formats.",
    ),
    Measure("noise.offset", "float", "", "Largest mean of a channel (DC); full scale is 1."),
    Measure(
        "noise.floor",
        "float",
        "dBFS",
        "RMS below which 5 % of the hops of 100 ms are; digital silence is not counted.",
    ),
    Measure("silence.share", "float", "", "Share of 10 ms windows whose peak is below −60 dBFS."),
    Measure("silence.head", "float", "s", "Silence before the first sound."),
    Measure("silence.tail", "float", "s", "Silence after the last sound."),
    Measure("silence.inside", "float", "s", "Longest silence between sounds."),
    Measure("silence.events", "events", "s", "Silences of two seconds or more between sounds."),
    Measure("cut.start", "float", "dBFS", "Peak of the first 10 ms: high if the start is cut off."),
    Measure("cut.end", "float", "dBFS", "Peak of the last 10 ms: high if the end is cut off."),
)

_SILENCE = 1e-3
_SILENT_SECONDS = 2
_FLOOR_QUANTILE = 0.05
#: Steps of the histogram of hops in a dB.
_STEPS_PER_DB = 10


@dataclass(slots=True)
class LevelMeter:
    """A meter of levels; see :data:`MEASURES`.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames
        Number of frames.
    peak, peak_frame
        Largest absolute sample, and its first frame.
    denormals
        Number of denormal samples.
    sums, energies
        Exact sums of the samples and of their squares, by channel.
    hops
        Number of hops of 100 ms by their level, in tenths of a dB.
    silence
        Runs of silent windows.
    first_peak, last_peak
        Peaks of the first and of the last 10 ms; ``None`` if they were not in these blocks.
    """

    shape: Shape
    frames: int = 0
    peak: float = 0.0
    peak_frame: int = 0
    denormals: int = 0
    sums: list[int] = field(default_factory=list)
    energies: list[int] = field(default_factory=list)
    hops: dict[int, int] = field(default_factory=dict)
    silence: Runs = field(default_factory=lambda: Runs(0))
    first_peak: float | None = None
    last_peak: float | None = None

    def __post_init__(self) -> None:
        """Set the number of channels and the length of a silence."""
        self.sums = self.sums or [0] * self.shape.channels
        self.energies = self.energies or [0] * self.shape.channels
        self.silence.least_frames = _SILENT_SECONDS * self.shape.rate_hz

    @property
    def _window_frames(self) -> int:
        return max(1, self.shape.rate_hz // 100)

    def add(self, block: Block) -> None:
        """Add the next block."""
        samples, window = block.samples, self._window_frames
        peaks = window_peaks(samples, window)
        self._add_peak(block, peaks)
        self.silence.add(block.start, peaks.max(axis=0) < _SILENCE, window, block.frames)
        if block.is_first:
            self.first_peak = float(np.abs(samples[:, :window]).max())
        if block.is_last:
            stop = block.before + block.frames
            last = block.around[:, max(0, stop - window) : stop]
            self.last_peak = float(np.abs(last).max())
        self._add_energies(block)
        self.denormals += count_denormals(samples)
        self.frames += block.frames

    def _add_peak(self, block: Block, peaks: npt.NDArray[np.float32]) -> None:
        peak = float(peaks.max())
        if peak > self.peak:
            window = int(peaks.max(axis=0).argmax()) * self._window_frames
            near = np.abs(block.samples[:, window : window + self._window_frames])
            self.peak = peak
            self.peak_frame = block.start + window + int(near.max(axis=0).argmax())

    def _add_energies(self, block: Block) -> None:
        samples, hop, energies = block.samples, self.shape.hop_frames, block.energies
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.nan_to_num(samples.sum(axis=1))
        for channel in range(self.shape.channels):
            self.sums[channel] += exact(float(sums[channel]))
            self.energies[channel] += exact(float(energies[channel].sum()))
        whole = energies[:, : block.frames // hop].mean(axis=0) / hop
        whole = whole[whole > 0]
        steps = np.floor(10 * _STEPS_PER_DB * np.log10(whole)).astype(int)
        count(self.hops, steps.tolist())

    def merge(self, later: LevelMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.frames += later.frames
        if later.peak > self.peak:
            self.peak, self.peak_frame = later.peak, later.peak_frame
        self.denormals += later.denormals
        self.sums = [a + b for a, b in zip(self.sums, later.sums, strict=True)]
        self.energies = [a + b for a, b in zip(self.energies, later.energies, strict=True)]
        merge(self.hops, later.hops)
        self.silence.merge(later.silence)
        self.first_peak = later.first_peak if self.first_peak is None else self.first_peak
        self.last_peak = self.last_peak if later.last_peak is None else later.last_peak

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        rate_hz, samples = self.shape.rate_hz, self.frames * self.shape.channels
        peak = decibels(self.peak)
        rms = decibels(inexact(sum(self.energies)) / samples, 10)
        floor = quantile(self.hops, _FLOOR_QUANTILE)
        silence = self.silence
        is_silent = silence.total_frames == self.frames
        return {
            "level.peak": peak,
            "level.peak_second": None if peak is None else self.peak_frame / rate_hz,
            "level.rms": rms,
            "level.crest": None if peak is None or rms is None else peak - rms,
            "level.denormals": self.denormals,
            "noise.offset": max(abs(inexact(total)) for total in self.sums) / self.frames,
            "noise.floor": None if floor is None else floor / _STEPS_PER_DB,
            "silence.share": silence.total_frames / self.frames,
            "silence.head": silence.lead_frames / rate_hz,
            "silence.tail": 0.0 if is_silent else silence.trail_frames / rate_hz,
            "silence.inside": silence.longest_frames / rate_hz,
            "silence.events": silence.worst.readings(rate_hz, 1 / rate_hz),
            "cut.start": decibels(self.first_peak or 0.0),
            "cut.end": decibels(self.last_peak or 0.0),
        }


def count_denormals(samples: npt.NDArray[np.float32]) -> int:
    """Return the number of denormal samples: their exponent is 0, and their fraction is not.

    The bits are compared, because a processor may be set to take denormal numbers for zeros.

    >>> count_denormals(np.float32([1e-40, -1e-45, 1e-37, 0.0, -0.0]))
    2
    """
    # Twice the bits without the sign, less two: a zero becomes the largest number.
    numbers = samples.view(np.uint32) << np.uint32(1)
    numbers -= np.uint32(2)
    least_normal = np.uint32(0x00FF_FFFE)
    if numbers.min(initial=least_normal) >= least_normal:  # cheaper than to count
        return 0
    return int(np.count_nonzero(numbers < least_normal))


def window_peaks(samples: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float32]:
    """Return the largest absolute sample of each window; the last window may be shorter.

    Parameters
    ----------
    samples : float32 [channels, frames]
    frames
        Length of a window.

    Returns
    -------
    float32 [channels, windows]

    Examples
    --------
    >>> window_peaks(np.array([[1, -3, 2, 0, -1]], np.float32), 2).tolist()
    [[3.0, 2.0, 1.0]]
    """
    starts = np.arange(0, samples.shape[1], frames)
    highest = np.maximum.reduceat(samples, starts, axis=1)
    peaks: npt.NDArray[np.float32] = np.maximum(
        highest, -np.minimum.reduceat(samples, starts, axis=1)
    )
    return peaks
