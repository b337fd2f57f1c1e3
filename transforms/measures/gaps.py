"""Gaps: dropouts, where the samples of a channel are equal for a moment inside sound.

A gap is a run of equal samples: digital silence or a frozen value. A run is known by its two
edges, and an edge is judged from the 20 ms beside it. A run may be longer than a block, so the
meter keeps the edges of the runs that cross the borders of its part.
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
Booleans: TypeAlias = npt.NDArray[np.bool_]
#: First frame of a gap, the frame after its last one, and its channel.
Gap: TypeAlias = tuple[int, int, int]
#: Columns of an edge: the channel, the frame (of a start: the first of the run; of an end: the
#: first after the run), and three truth values: whether the edge is abrupt, and whether the sound
#: beside it has samples above and below the value of the run.
_CHANNEL, _FRAME, _IS_ABRUPT, _ABOVE, _BELOW = range(5)

#: Durations of gaps. Shorter runs are clipped peaks, longer runs are pauses.
_SHORTEST_S, _LONGEST_S = 0.001, 3.5
#: Smallest number of equal samples, which matters at rates below 8 kHz.
_FEWEST_FRAMES = 8
#: Duration of the sound beside an edge; its smallest RMS about the value of the run (-40 dBFS),
#: also as a multiple of its smallest step; and its largest share of equal neighbours. Square waves
#: and music of few bits have large steps, and plateaus of n samples have a share of 1 - 1/n.
_BESIDE_S, _LOUD, _STEPS, _FLAT_SHARE = 0.005, 0.01, 12.0, 0.5
#: An edge is abrupt if it jumps by more than 6 times the RMS step beside it, or by more than a
#: fifth of the RMS beside it, or if the curvature within 0.5 ms of it is half of the curvature
#: beside it, or more. A linear fade of 1 ms has 0.31, a linear fade of 2 ms has 0.17, and a cut has
#: about 1; between the pulses of a trumpet or a voice, a cut has less. A fade ends in a small step.
_EDGE_S, _JUMP, _CUT, _ABRUPT, _FADED = 0.0005, 6.0, 0.2, 0.5, 0.3
#: Duration beside the edges in which samples lie above and below the value of the run. Plateaus of
#: clipped sound and of synthesisers have an extreme value. So has silence in sound with an offset,
#: but only this silence begins and ends with a jump.
_AROUND_S = 0.02

MEASURES = (
    Measure(
        "gaps.count", "int", "", "Number of dropouts: 1 ms to 3.5 s of equal samples in sound."
    ),
    Measure("gaps.seconds", "float", "s", "Duration of all dropouts."),
    Measure("gaps.longest", "float", "s", "Duration of the longest dropout, 0 without dropouts."),
    Measure("gaps.events", "events", "ms", "The longest dropouts and their durations."),
)


@dataclass(slots=True)
class GapsMeter:
    """Dropouts of a part of a recording.

    Dropouts of several channels count as one, with the duration of the longest, if they overlap,
    start in the same block, and end in the same block.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    count, frames
        Number and total length of the gaps that start and end in the part.
    worst
        The longest of these gaps.
    starts, ends
        Edges inside sound: of runs that start in the part and end after it, and of runs that start
        before the part and end in it. At most one run of a channel crosses a border.
    broken
        Channels whose samples in the part are not all equal.
    """

    shape: Shape
    count: int = 0
    frames: int = 0
    worst: Worst = field(default_factory=Worst)
    starts: list[list[int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)

    def add(self, block: Block) -> None:
        """Add the next block."""
        part = GapsMeter(self.shape)
        part._measure(block)
        self.merge(part)

    def merge(self, later: GapsMeter) -> None:
        """Add what another meter read from the blocks after these."""
        ends = {edge[_CHANNEL]: edge for edge in later.ends}
        closed = [edge for edge in self.starts if edge[_CHANNEL] in ends]
        closing = [ends[edge[_CHANNEL]] for edge in closed]
        if closed:
            self._count(_gaps(np.array(closed), np.array(closing), self.shape.rate_hz))
        self.count += later.count
        self.frames += later.frames
        self.worst.merge(later.worst)
        lasting = [edge for edge in self.starts if edge[_CHANNEL] not in later.broken]
        entering = [edge for edge in later.ends if edge[_CHANNEL] not in self.broken]
        self.starts = sorted([*lasting, *later.starts])
        self.ends = sorted([*self.ends, *entering])
        self.broken = sorted({*self.broken, *later.broken})

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        rate_hz = self.shape.rate_hz
        return {
            "gaps.count": self.count,
            "gaps.seconds": self.frames / rate_hz,
            "gaps.longest": -self.worst.events[0][0] / rate_hz if self.count else 0.0,
            "gaps.events": self.worst.readings(rate_hz, 1000 / rate_hz),
        }

    def _measure(self, block: Block) -> None:
        """Count the gaps inside a block, and keep the edges of the runs that cross its borders."""
        rate_hz, stop = self.shape.rate_hz, block.before + block.frames
        runs = find_runs(block.around, max(_FEWEST_FRAMES, _frames(_SHORTEST_S, rate_hz)))
        runs = runs[(runs[:, 1] < stop) & (runs[:, 2] > block.before)]
        starting, ending = runs[:, 1] >= block.before, runs[:, 2] <= stop
        passing = runs[~starting & ~ending, 0].tolist()
        self.broken = sorted(set(range(self.shape.channels)).difference(passing))
        if not len(runs):
            return
        starts, in_sound = _judge(block.around, runs[:, 0], runs[:, 1], -1, rate_hz)
        ends, into_sound = _judge(block.around, runs[:, 0], runs[:, 2], 1, rate_hz)
        starts[:, _FRAME] += block.start - block.before
        ends[:, _FRAME] += block.start - block.before
        self.starts = starts[starting & ~ending & in_sound].tolist()
        self.ends = ends[ending & ~starting & into_sound].tolist()
        whole = starting & ending & in_sound & into_sound
        self._count(_gaps(starts[whole], ends[whole], rate_hz))

    def _count(self, gaps: list[Gap]) -> None:
        for first, stop, channel in _distinct(gaps, self.shape.block_frames):
            self.count += 1
            self.frames += stop - first
            self.worst.add([(stop - first, first, channel)])


def find_runs(samples: Samples, fewest: int) -> Integers:
    """Return the runs of equal samples.

    Parameters
    ----------
    samples : float32 [channels, frames]
    fewest
        Number of samples in the shortest run, 4 or more.

    Returns
    -------
    int [runs, 3]
        The channel, the first frame, and the frame after the last one.

    Examples
    --------
    >>> find_runs(np.float32([[5, 7, 7, 7, 7, 2, 2, 2, 0, 0, 0, 0, 0]]), 4).tolist()
    [[0, 1, 5], [0, 8, 13]]
    """
    stride = fewest // 2  # each run holds two neighbours of every stride-th sample
    sparse = samples[:, ::stride]
    channels, steps = np.nonzero(sparse[:, 1:] == sparse[:, :-1])
    between = _beside(samples, channels, steps * stride, 1, stride)
    equal = (between == between[:, :1]).all(axis=1)
    channels, steps = channels[equal], steps[equal]
    breaks = (np.diff(steps) != 1) | (np.diff(channels) != 0)
    is_first, is_last = np.append(True, breaks), np.append(breaks, True)
    if not len(steps):
        return np.empty((0, 3), np.int64)
    channels, first, last = channels[is_first], steps[is_first], steps[is_last] + 1
    first = first * stride - _equal_beyond(samples, channels, first * stride, -1, stride)
    last = last * stride + _equal_beyond(samples, channels, last * stride, 1, stride)
    runs: Integers = np.column_stack([channels, first, last + 1])[last + 1 - first >= fewest]
    return runs


def _equal_beyond(
    samples: Samples, channels: Integers, frames: Integers, direction: int, reach: int
) -> Integers:
    """Return the numbers of samples next to frames that equal the sample of the frame."""
    beyond = frames[:, np.newaxis] + direction * np.arange(1, reach + 1)
    inside = (beyond >= 0) & (beyond < samples.shape[1])
    near = _beside(samples, channels, frames, direction, reach)
    equal = inside & (near[:, 1:] == near[:, :1])
    counts: Integers = np.logical_and.accumulate(equal, axis=1).sum(axis=1)
    return counts


def _judge(
    samples: Samples, channels: Integers, frames: Integers, direction: int, rate_hz: int
) -> tuple[Integers, Booleans]:
    """Return edges of runs, and whether there is sound beside each of them.

    The frames are the first ones of the runs (direction -1), or the first ones after the runs (1).
    """
    inner = frames - (direction > 0)
    edges = np.zeros((len(frames), 5), np.int64)
    edges[:, _CHANNEL], edges[:, _FRAME] = channels, frames
    with np.errstate(over="ignore", invalid="ignore"):
        beside = _beside(samples, channels, inner, direction, _frames(_BESIDE_S, rate_hz))
        outer = inner + direction * (beside.shape[1] - 1)
        sound = (outer >= 0) & (outer < samples.shape[1]) & _is_sound(beside)
        jumps, cuts, bend = _abruptness(beside[sound], _frames(_EDGE_S, rate_hz))
        channels, inner = channels[sound], inner[sound]
        around = _beside(samples, channels, inner, direction, _frames(_AROUND_S, rate_hz))
    value = around[:, :1]
    silent = jumps & (value[:, 0] == 0)
    edges[sound, _IS_ABRUPT] = jumps | cuts | (bend >= _ABRUPT)
    edges[sound, _ABOVE] = silent | (around > value).any(axis=1)
    edges[sound, _BELOW] = silent | (around < value).any(axis=1)
    sound[sound] = jumps | cuts | (bend >= _FADED)
    return edges, sound


def _beside(
    samples: Samples, channels: Integers, frames: Integers, direction: int, length: int
) -> Samples:
    """Return the samples at some frames, and those beside them from the nearest on."""
    places = frames[:, np.newaxis] + direction * np.arange(length + 1)
    beside: Samples = samples[channels[:, np.newaxis], places.clip(0, samples.shape[1] - 1)]
    return beside


def _is_sound(beside: Samples) -> Booleans:
    """Return whether the samples beside runs are loud and no plateaus."""
    steps = np.abs(np.diff(beside, axis=1))
    flat = (steps == 0).mean(axis=1)
    finest = np.where(steps > 0, steps, np.inf).min(axis=1)
    level = np.sqrt(((beside[:, 1:] - beside[:, :1]) ** 2).mean(axis=1))
    sound: Booleans = (level > np.maximum(_LOUD, _STEPS * finest)) & (flat <= _FLAT_SHARE)
    return sound


def _abruptness(beside: Samples, near: int) -> tuple[Booleans, Booleans, Samples]:
    """Return whether edges jump beyond the steps beside them, whether they jump by a fifth of the
    level beside them, and the relative curvature of the sound at the edges.
    """
    slopes = np.diff(beside, axis=1) ** 2
    jumps = slopes[:, 0] > _JUMP**2 * slopes[:, 1:].mean(axis=1)
    cuts = slopes[:, 0] > _CUT**2 * ((beside[:, 1:] - beside[:, :1]) ** 2).mean(axis=1)
    bends = np.diff(beside[:, 1:], n=2, axis=1) ** 2
    return jumps, cuts, np.sqrt(bends[:, :near].mean(axis=1) / bends.mean(axis=1))


def _gaps(starts: Integers, ends: Integers, rate_hz: int) -> list[Gap]:
    """Return the runs between pairs of edges that are gaps."""
    both = starts | ends
    gap = (both[:, [_IS_ABRUPT, _ABOVE, _BELOW]] == 1).all(axis=1)
    gap &= ends[:, _FRAME] - starts[:, _FRAME] <= _LONGEST_S * rate_hz
    columns = starts[:, _FRAME], ends[:, _FRAME], starts[:, _CHANNEL]
    return list(zip(*(column[gap].tolist() for column in columns), strict=True))


def _distinct(gaps: list[Gap], block_frames: int) -> list[Gap]:
    """Return the longest gap of those that overlap, start in the same block, and end in the same.

    >>> _distinct([(10, 20, 0), (70, 80, 0), (12, 25, 1)], 100)
    [(12, 25, 1), (70, 80, 0)]
    """
    longest: list[Gap] = []
    reach: dict[tuple[int, int], int] = {}
    for gap in sorted(
        gaps, key=lambda gap: (gap[0] // block_frames, (gap[1] - 1) // block_frames, gap)
    ):
        blocks = gap[0] // block_frames, (gap[1] - 1) // block_frames
        if gap[0] < reach.get(blocks, 0):
            longest[-1] = max(longest[-1], gap, key=lambda gap: gap[1] - gap[0])
        else:
            longest.append(gap)
        reach[blocks] = max(gap[1], reach.get(blocks, 0))
    return longest


def _frames(seconds: float, rate_hz: int) -> int:
    return max(4, math.ceil(seconds * rate_hz))
