"""Hum: mains hum at 50 or 60 Hz with harmonics, which stays at its level while other sounds change.

Each harmonic has a histogram of its levels: one level for each block where it stands out of its
surroundings. Hum has the same level in many blocks; bass notes and drones at the same frequency
rarely do, and most of them are at other frequencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Samples, Shape
from melmill.transforms.measures.histograms import count, merge
from melmill.transforms.measures.meters import Measure, Reading, decibels

#: Number of blocks by level in dBFS, rounded.
Histogram: TypeAlias = dict[int, int]
#: Number of a harmonic, the number of blocks that have about the same level of it, and this level.
Steady: TypeAlias = dict[int, tuple[int, float]]
Powers: TypeAlias = npt.NDArray[np.float32]

MEASURES = (
    Measure(
        "hum.frequency",
        "float",
        "Hz",
        "Frequency of the mains, 50 or 60; null without hum. Hum has at least two steady "
        "harmonics, and the first or the second is one of them.",
    ),
    Measure(
        "hum.level", "float", "dBFS", "RMS of the counted harmonics together; null without hum."
    ),
    Measure(
        "hum.harmonics",
        "int",
        "",
        "Number of harmonics, of the first eight, that have the same level within 4 dB in 30 % or "
        "more of the blocks of two seconds; 0 without hum.",
    ),
)

_MAINS_HZ, _HARMONICS = (50.0, 60.0), 8
#: Frequencies without hum. Hum has more steady harmonics than these: a rhythm of 10 or 20 Hz and an
#: aliased wave of a synthesiser have steady tones at all multiples of 20 Hz.
_CONTROLS_HZ = (40, 80, 140, 160, 220, 260, 280, 320)
#: Number of each harmonic and control, and its frequency.
_NUMBERS = np.tile(np.arange(1, _HARMONICS + 1), len(_MAINS_HZ) + 1)
_FREQUENCIES_HZ = np.append(np.outer(_MAINS_HZ, _NUMBERS[:_HARMONICS]), _CONTROLS_HZ)
#: Blocks are lowered to 2 to 4 kHz, by a filter of so many samples at the lower rate. It lowers by
#: 50 dB or more what would become a harmonic.
_RATE_HZ, _TAPS, _KAISER = 2_000, 8, 7.0
#: Distance between the bins of the spectrum.
_RESOLUTION_HZ = 0.25
#: Largest deviation of the mains, which harmonics multiply, and largest deviation of a harmonic.
_DEVIATION_HZ, _MAX_DEVIATION_HZ = 0.5, 1.5
#: Distance to the next louder bin: a tone at 49 Hz also raises the bins up to 50 Hz.
_ALONE_HZ = 1.0
#: Distances between a harmonic and the bins beside it, without the harmonics of other mains; and
#: the smallest power of a harmonic over the loudest of these bins (3 dB). A beat of equal drums
#: has lines of equal power. In noise, 1 of 150 harmonics stands out.
_BESIDE_HZ, _PROMINENCE = (2.5, 8.5), 2.0
#: Largest power of a harmonic in a half of a block over that in the other half (2.5 dB).
_CHANGE = 10**0.25
#: Smallest power of a harmonic (-90 dBFS), and over that of the block up to 1 kHz (-45 dB). Lower
#: hum is not heard, and waves of synthesisers may have such tones.
_LEAST_POWER, _LEAST_SHARE = 1e-9, 10**-4.5
#: Limits of the mean square of a block: silence (-90 dBFS), and numbers that are not sound.
_LEAST_SOUND, _MOST_SOUND = 1e-9, 1e9
#: Hum has levels within 4 steps of 1 dB in 30 % of the blocks. In real music without hum, no
#: harmonic had more than 8 %; with hum at 12 dB below music, two or more had 30 %.
_STEPS, _SHARE = 4, 0.3
#: Smallest number of harmonics, and of their blocks together: music may be steady in a few blocks.
_LEAST_HARMONICS, _LEAST_HITS = 2, 4
#: Duration of the shortest recording that has readings.
_LEAST_SECONDS = 2


@dataclass(slots=True)
class HumMeter:
    """Hum of a part of a recording, in the mean of the channels.

    Blocks shorter than a second are skipped; with many channels, all are.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames
        Number of frames in the blocks that are not skipped.
    blocks
        Number of these blocks that are not silent.
    levels
        Levels of the harmonics of 50 Hz, of those of 60 Hz, and of the control frequencies.
    """

    shape: Shape
    frames: int = 0
    blocks: int = 0
    levels: list[Histogram] = field(
        default_factory=lambda: [{} for _ in range(len(_FREQUENCIES_HZ))]
    )

    def add(self, block: Block) -> None:
        """Add the next block."""
        if block.frames < max(self.shape.rate_hz, 2 * _TAPS):
            return
        self.frames += block.frames
        samples, rate_hz = lower(block.samples, self.shape.rate_hz)
        with np.errstate(over="ignore", invalid="ignore"):
            power = float(samples.var())
        if _LEAST_SOUND < power < _MOST_SOUND:
            self.blocks += 1
            powers = harmonics(samples, rate_hz)
            for i in np.flatnonzero(powers > max(_LEAST_POWER, _LEAST_SHARE * power)):
                count(self.levels[i], [round(10 * math.log10(powers[i]))])

    def merge(self, later: HumMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.frames += later.frames
        self.blocks += later.blocks
        for levels, later_levels in zip(self.levels, later.levels, strict=True):
            merge(levels, later_levels)

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        if self.frames < _LEAST_SECONDS * self.shape.rate_hz:
            return dict.fromkeys(("hum.frequency", "hum.level", "hum.harmonics"))
        *hums, controls = (self._steady(part) for part in range(len(_MAINS_HZ) + 1))
        heard = [
            (len(steady), _power(steady), mains_hz)
            for mains_hz, steady in zip(_MAINS_HZ, hums, strict=True)
            if _is_hum(steady, len(controls))
        ]
        number, power, frequency_hz = max(heard, default=(0, 0.0, None))
        return {
            "hum.frequency": frequency_hz,
            "hum.level": decibels(power, 10),
            "hum.harmonics": number,
        }

    def _steady(self, part: int) -> Steady:
        """Return the steady harmonics of a part of the levels."""
        levels = self.levels[part * _HARMONICS : (part + 1) * _HARMONICS]
        blocks_and_level = {i + 1: _steadiest(histogram) for i, histogram in enumerate(levels)}
        least = max(1, _SHARE * self.blocks)
        return {number: pair for number, pair in blocks_and_level.items() if pair[0] >= least}


def lower(samples: Samples, rate_hz: int) -> tuple[Samples, float]:
    """Return the mean of channels at a lower rate, 2 kHz at usual rates, and this rate.

    >>> samples, rate_hz = lower(np.ones((2, 48_000), np.float32), 48_000)
    >>> samples.shape, rate_hz, samples[0].round(3)
    ((1993,), 2000.0, np.float32(1.0))
    """
    factor = max(1, rate_hz // _RATE_HZ)
    total = samples[0].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for plane in samples[1:]:
            total += plane
        # Column i holds what the samples of each piece add to the output i pieces earlier.
        pieces = total[: len(total) // factor * factor].reshape(-1, factor)
        added = pieces @ _filter(factor)
        lowered = added[: len(added) - _TAPS + 1, 0].copy()
        for i in range(1, _TAPS):
            lowered += added[i : i + len(lowered), i]
        return lowered / np.float32(len(samples)), rate_hz / factor


def harmonics(samples: Samples, rate_hz: float) -> Powers:
    """Return the mean squares of the harmonics that stand out and are steady; 0 for others.

    >>> seconds = np.arange(4_000, dtype=np.float32) / 2_000
    >>> harmonics(np.sin(2 * np.pi * 120 * seconds), 2_000).round(3).tolist()[8:16]
    [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    grid = _grid(rate_hz)
    near = _powers(samples, grid.length)[grid.bins]
    searched = np.where(grid.searched, near, 0)
    peaks, places = searched.max(axis=1), searched.argmax(axis=1)
    stands_out = peaks == np.where(grid.alone, near, 0).max(axis=1)
    stands_out &= peaks > _PROMINENCE * np.where(grid.beside, near, 0).max(axis=1)
    chosen = np.flatnonzero(stands_out)
    steady: Powers = np.zeros_like(peaks)
    if len(chosen):
        is_steady = _are_steady(samples, grid.length // 2, grid.bins[chosen, places[chosen]] // 2)
        steady[chosen] = np.where(is_steady, peaks[chosen], 0)
    return steady


def _are_steady(
    samples: Samples, length: int, bins: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return whether the power of bins is about the same in both halves of the samples."""
    half = len(samples) // 2
    first, second = _powers(samples[: 2 * half].reshape(2, half), length)[:, bins]
    steady: npt.NDArray[np.bool_] = (first < _CHANGE * second) & (second < _CHANGE * first)
    return steady


def _powers(samples: Samples, length: int) -> Powers:
    """Return the mean squares of sines at all frequencies, from a transform of some length."""
    from scipy.fft import rfft  # imported here, because few processes need it

    window = _window(samples.shape[-1])
    powers: Powers = 2 * np.square(np.abs(rfft(samples * window, length)) / window.sum())
    return powers


@dataclass(frozen=True, slots=True)
class _Grid:
    """The bins of a spectrum near the harmonics.

    Attributes
    ----------
    length
        Number of samples of the transform.
    bins : int [harmonics, bins]
        Bins near each harmonic.
    searched, alone, beside : bool [harmonics, bins]
        Bins where the harmonic may be, bins that are not louder, and bins that are quieter.
    """

    length: int
    bins: npt.NDArray[np.int64]
    searched: npt.NDArray[np.bool_]
    alone: npt.NDArray[np.bool_]
    beside: npt.NDArray[np.bool_]


@lru_cache(maxsize=32)
def _grid(rate_hz: float) -> _Grid:
    from scipy.fft import next_fast_len

    length = 2 * next_fast_len(round(rate_hz / _RESOLUTION_HZ / 2), real=True)
    bin_hz, last = rate_hz / length, length // 2
    steps = np.arange(-(_BESIDE_HZ[1] // bin_hz), _BESIDE_HZ[1] // bin_hz + 1).astype(np.int64)
    bins = np.rint(_FREQUENCIES_HZ / bin_hz).astype(np.int64)[:, np.newaxis] + steps
    distances = np.abs(bins * bin_hz - _FREQUENCIES_HZ[:, np.newaxis])
    deviations = np.minimum(_DEVIATION_HZ * _NUMBERS, _MAX_DEVIATION_HZ)[:, np.newaxis]
    searched = (distances <= deviations) & (bins[:, -1:] <= last)
    alone, beside = distances <= deviations + _ALONE_HZ, distances >= _BESIDE_HZ[0]
    return _Grid(length, bins.clip(0, last), searched, alone, beside)


@lru_cache(maxsize=8)
def _filter(factor: int) -> Samples:
    """Return a low-pass filter [factor, taps], which passes a half of the lower rate."""
    if factor == 1:
        return np.eye(1, _TAPS, dtype=np.float32)
    length = factor * _TAPS
    times = (np.arange(length) - (length - 1) / 2) / factor
    weights = np.sinc(times) * np.kaiser(length, _KAISER)
    return np.ascontiguousarray((weights / weights.sum()).reshape(_TAPS, factor).T, np.float32)


@lru_cache(maxsize=32)
def _window(length: int) -> Samples:
    return np.hanning(length).astype(np.float32)


def _is_hum(steady: Steady, controls: int) -> bool:
    """Return whether steady harmonics are hum, beside so many steady controls."""
    hits = sum(blocks for blocks, _ in steady.values())
    enough = len(steady) >= _LEAST_HARMONICS and hits >= _LEAST_HITS
    return enough and not steady.keys().isdisjoint((1, 2)) and len(steady) > controls


def _power(steady: Steady) -> float:
    return sum(10 ** (level / 10) for _, level in steady.values())


def _steadiest(histogram: Histogram) -> tuple[int, float]:
    """Return the most blocks that have a level within 4 dB, and their mean level in dBFS.

    >>> _steadiest({-50: 2, -47: 2, -46: 3})
    (5, -46.4)
    """
    spans = [
        [(level, blocks) for level, blocks in histogram.items() if low <= level < low + _STEPS]
        for low in sorted(histogram)
    ]
    most = max(spans, key=lambda span: sum(blocks for _, blocks in span), default=[])
    blocks = sum(blocks for _, blocks in most)
    return blocks, sum(level * n for level, n in most) / blocks if blocks else -math.inf
