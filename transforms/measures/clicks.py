"""Clicks: impulses that stand out of the sound around them, as a rate to rank recordings by.

Impulses are judged in the third difference of the samples, where music and speech are quiet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Samples, Shape
from melmill.transforms.measures.meters import Measure, Reading, Worst

Integers: TypeAlias = npt.NDArray[np.int64]
#: Height in dB, frame, and channel of a click.
Click: TypeAlias = tuple[float, int, int]

MEASURES = (
    Measure("clicks.per_minute", "float", "1/min", "Number of clicks per minute."),
    Measure(
        "clicks.count",
        "int",
        "",
        "Number of impulses whose third difference is at least 24.6 dB above the RMS of the 5 ms "
        "before and of the 5 ms after. It ranks recordings: some music has such sounds on purpose.",
    ),
    Measure("clicks.events", "events", "dB", "The clicks that stand out most."),
)

#: Higher rates are lowered to about this rate, so that a click is the same at any rate.
_RATE_HZ = 48_000
#: Smallest third difference of a click over the RMS beside it (24.6 dB). The third difference of
#: one sample of height h is 3 h. In noise and music, it is rarely 12 times the RMS beside it.
_CREST = 17.0
#: Smallest RMS that counts, so that steps of 16-bit samples in silence are no clicks: 4 steps.
_FLOOR = 2.0**-13
#: Duration of the sound beside a click, and of the click itself on each side of its peak.
_BESIDE_S, _GUARD_S = 0.005, 0.0003
#: Pulse waves and voices repeat their impulses. A click has at most one impulse of half its
#: height or more in the 50 ms on its sides, counted in cells of 10 ms without the nearest.
_CELLS_PER_S, _NEAR_CELLS, _SIMILAR, _MAX_SIMILAR = 100, 5, 0.49, 1
#: Largest energy of a click over its squared peak; a single sample has 20 / 9.
_CLICK_ENERGY = 6.0


@dataclass(slots=True)
class ClicksMeter:
    """Clicks of a part of a recording.

    Clicks of all channels within 5 ms are one click: the one that stands out most. Clicks in the
    first and the last 5 ms of a recording are not counted.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames, count
        Number of frames and of clicks.
    worst
        The clicks that stand out most.
    """

    shape: Shape
    frames: int = 0
    count: int = 0
    worst: Worst = field(default_factory=Worst)

    def add(self, block: Block) -> None:
        """Add the next block."""
        clicks = find_clicks(block)
        self.frames += block.frames
        self.count += len(clicks)
        self.worst.add(clicks)

    def merge(self, later: ClicksMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.frames += later.frames
        self.count += later.count
        self.worst.merge(later.worst)

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        minutes = self.frames / self.shape.rate_hz / 60
        return {
            "clicks.per_minute": self.count / minutes if minutes else None,
            "clicks.count": self.count,
            "clicks.events": self.worst.readings(self.shape.rate_hz),
        }


def find_clicks(block: Block) -> list[Click]:
    """Return the clicks of a block."""
    rate_hz = block.shape.rate_hz
    factor = max(1, round(rate_hz / _RATE_HZ))
    clicks: list[Click] = []
    for channel, plane in enumerate(block.around):
        with np.errstate(over="ignore", invalid="ignore"):
            bends = third_difference(_lowered(plane, factor))
            peaks, heights = find_impulses(bends, rate_hz // factor)
        frames = (peaks + 2) * factor + block.start - block.before
        clicks += zip(heights.tolist(), frames.tolist(), [channel] * len(peaks), strict=True)
    clicks = _separate(clicks, round(_BESIDE_S * rate_hz))
    return [click for click in clicks if 0 <= click[1] - block.start < block.frames]


def third_difference(samples: Samples) -> Samples:
    """Return the third difference of samples; the peak of an impulse is 2 samples early.

    >>> third_difference(np.float32([0, 0, 0, 1, 0, 0, 0])).tolist()
    [1.0, -3.0, 3.0, -1.0]
    """
    slopes = samples[1:] - samples[:-1]
    bends = slopes[1:] - slopes[:-1]
    result: Samples = slopes[: max(0, len(bends) - 1)]
    return np.subtract(bends[1:], bends[:-1], out=result)


def find_impulses(bends: Samples, rate_hz: int) -> tuple[Integers, npt.NDArray[np.float64]]:
    """Return the frames of impulses in a third difference, and their heights in dB.

    Only the highest peak of each cell of 10 ms is an impulse. Cells are first screened by their
    crest factor.
    """
    length = max(1, rate_hz // _CELLS_PER_S)
    cells = bends[: len(bends) // length * length].reshape(-1, length)
    heights = np.abs(cells).max(axis=1, initial=0)
    energies = np.einsum("ij,ij->i", cells, cells)
    screen = heights**2 * (_CLICK_ENERGY + length / _CREST**2) >= energies
    chosen = np.flatnonzero(screen & (heights > _CREST * _FLOOR) & (heights < np.inf))
    if not len(chosen):
        return chosen, np.empty(0)
    chosen = chosen[_similar(heights, chosen) <= _MAX_SIMILAR]
    peaks = chosen * length + np.abs(cells[chosen]).argmax(axis=1)
    crests = heights[chosen] / np.maximum(_FLOOR, _levels_beside(bends, peaks, rate_hz))
    return peaks[crests >= _CREST], 20 * np.log10(crests[crests >= _CREST])


def _similar(heights: Samples, chosen: Integers) -> Integers:
    """Return the number of cells near each chosen cell whose height is similar to it or larger."""
    steps = np.arange(2, _NEAR_CELLS + 1)
    near = chosen[:, np.newaxis] + np.concatenate([-steps, steps])
    inside = (near >= 0) & (near < len(heights))
    near_heights = heights[near.clip(0, len(heights) - 1)]
    similar = inside & (near_heights >= _SIMILAR * heights[chosen][:, np.newaxis])
    counts: Integers = similar.sum(axis=1)
    return counts


def _levels_beside(bends: Samples, peaks: Integers, rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the RMS of the 5 ms before peaks, or of the 5 ms after them, whichever is larger.

    The RMS is infinite where the samples end sooner.
    """
    guard = math.ceil(_GUARD_S * rate_hz)
    steps = np.arange(guard + 1, max(guard + 4, math.ceil(_BESIDE_S * rate_hz)) + 1)
    squares = [
        bends[(peaks[:, np.newaxis] + side * steps).clip(0, len(bends) - 1)].astype(np.float64) ** 2
        for side in (-1, 1)
    ]
    levels = np.sqrt(np.maximum(*(side.mean(axis=1) for side in squares)))
    reach = steps[-1]
    return np.where((peaks >= reach) & (peaks < len(bends) - reach), levels, np.inf)


def _lowered(samples: Samples, factor: int) -> Samples:
    """Return the means of neighbouring samples."""
    if factor == 1:
        return samples
    length = len(samples) // factor * factor
    lowered = samples[:length:factor] + samples[1:length:factor]
    for first in range(2, factor):
        lowered += samples[first:length:factor]
    return lowered * np.float32(1 / factor)


def _separate(clicks: list[Click], reach: int) -> list[Click]:
    """Return the clicks without those near a higher one.

    >>> _separate([(30.0, 0, 0), (40.0, 5, 1), (31.0, 12, 0)], 6)
    [(40.0, 5, 1), (31.0, 12, 0)]
    """
    separate: list[Click] = []
    for click in sorted(clicks, key=lambda click: (-click[0], click[1:])):
        if all(abs(click[1] - other[1]) > reach for other in separate):
            separate.append(click)
    return separate
