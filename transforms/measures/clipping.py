"""Clipping: runs of samples at the recording's own extremes, at any level."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.meters import Measure, Reading, Worst, decibels

MEASURES = (
    Measure(
        "clipping.runs",
        "int",
        "",
        "Runs of three samples or more at the largest positive or negative value, within 2⁻¹⁵. A "
        "run beside a steep slope is clipped. If fewer than a tenth of the runs are beside such a "
        "slope, only these count.",
    ),
    Measure("clipping.share", "float", "", "Share of all samples that are in such runs."),
    Measure("clipping.longest", "float", "ms", "Length of the longest run."),
    Measure("clipping.level", "float", "dBFS", "Level of the runs; null without clipping."),
    Measure("clipping.positive", "int", "", "Runs at the largest positive value."),
    Measure("clipping.negative", "int", "", "Runs at the largest negative value."),
    Measure("clipping.events", "events", "ms", "Longest runs."),
)

_LEAST_SAMPLES = 3
#: Number of levels in full scale: those of 16-bit samples.
_LEVELS = 1 << 15
_MAX_LEVEL = 1 << 40
#: Share of runs beside a slope from which on all runs count.
_SLOPES_SHARE = 0.1
#: Slopes per sample, as a share of the largest value, that are steps of a synthetic sound.
_STEP = 0.5


@dataclass(slots=True)
class ClippedRuns:
    """Runs of samples.

    Attributes
    ----------
    runs, samples, longest
        Number of runs, of samples in them, and of samples in the longest.
    worst
        Longest runs.
    """

    runs: int = 0
    samples: int = 0
    longest: int = 0
    worst: Worst = field(default_factory=Worst)

    @classmethod
    def of(
        cls, lengths: npt.NDArray[np.intp], frames: npt.NDArray[np.intp], channel: int
    ) -> ClippedRuns:
        """Return runs of a channel, from their lengths and first frames."""
        if not len(lengths):
            return cls()
        worst = Worst()
        worst.add(zip(lengths.tolist(), frames.tolist(), [channel] * len(frames), strict=True))
        return cls(len(lengths), int(lengths.sum()), int(lengths.max()), worst)

    def merge(self, later: ClippedRuns) -> None:
        """Add the runs of another part of the recording."""
        self.runs += later.runs
        self.samples += later.samples
        self.longest = max(self.longest, later.longest)
        self.worst.merge(later.worst)


@dataclass(slots=True)
class Plateau:
    """Runs of samples at or above a level.

    Attributes
    ----------
    all, steep
        All runs, and those beside a slope that points beyond the level.
    """

    all: ClippedRuns = field(default_factory=ClippedRuns)
    steep: ClippedRuns = field(default_factory=ClippedRuns)

    def merge(self, later: Plateau) -> None:
        """Add the runs of another part of the recording."""
        self.all.merge(later.all)
        self.steep.merge(later.steep)


@dataclass(slots=True)
class Extreme:
    """The runs at the largest value of one sign.

    The largest value is known only at the end. Until then, runs are kept for the largest level so
    far and for the level below: the level that counts is either of these, or a higher level that
    follows.

    Attributes
    ----------
    level
        Largest level: the value in steps of 16-bit samples, rounded down.
    plateaus
        Runs at or above `level` and `level` − 1.
    """

    level: int = -1
    plateaus: dict[int, Plateau] = field(default_factory=dict)

    def merge(self, later: Extreme) -> None:
        """Add the runs of another part of the recording."""
        self.level = max(self.level, later.level)
        plateaus = {level: p for level, p in self.plateaus.items() if level >= self.level - 1}
        for level, plateau in later.plateaus.items():
            if level >= self.level - 1:
                plateaus.setdefault(level, Plateau()).merge(plateau)
        self.plateaus = dict(sorted(plateaus.items()))

    @property
    def runs(self) -> ClippedRuns:
        """Runs at the largest level, within one step, that count as clipping."""
        plateau = self.plateaus.get(self.level - 1, Plateau())
        are_slopes = plateau.steep.runs >= _SLOPES_SHARE * plateau.all.runs
        return plateau.all if are_slopes else plateau.steep


@dataclass(slots=True)
class ClippingMeter:
    """A meter of clipping; see :data:`MEASURES`.

    A run needs a slope that points beyond it: a straight line through the two samples before it, or
    after it, goes beyond the largest value, and these two are not on a plateau of their own. So the
    round tops of slow waves and the plateaus of square waves do not count.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames
        Number of frames.
    positive, negative
        Runs at the largest value of each sign.
    """

    shape: Shape
    frames: int = 0
    positive: Extreme = field(default_factory=Extreme)
    negative: Extreme = field(default_factory=Extreme)

    def add(self, block: Block) -> None:
        """Add the next block."""
        self.frames += block.frames
        for extreme, sign in ((self.positive, 1), (self.negative, -1)):
            largest = float(block.samples.max() if sign > 0 else -block.samples.min())
            level = min(_MAX_LEVEL, int(largest * _LEVELS)) if largest > 0 else 0
            if level < max(1, extreme.level - 1):
                continue
            thresholds = [at for at in (level - 1, level) if at >= max(1, extreme.level - 1)]
            plateaus = {at: find_plateau(block, sign, at) for at in thresholds}
            extreme.merge(Extreme(level, plateaus))

    def merge(self, later: ClippingMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.frames += later.frames
        self.positive.merge(later.positive)
        self.negative.merge(later.negative)

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        total = ClippedRuns()
        total.merge(self.positive.runs)
        total.merge(self.negative.runs)
        clipped = [e.level for e in (self.positive, self.negative) if e.runs.runs]
        milliseconds = 1000 / self.shape.rate_hz
        return {
            "clipping.runs": total.runs,
            "clipping.share": total.samples / (self.frames * self.shape.channels),
            "clipping.longest": total.longest * milliseconds,
            "clipping.level": decibels(max(clipped) / _LEVELS) if clipped else None,
            "clipping.positive": self.positive.runs.runs,
            "clipping.negative": self.negative.runs.runs,
            "clipping.events": total.worst.readings(self.shape.rate_hz, milliseconds),
        }


def find_plateau(block: Block, sign: int, level: int) -> Plateau:
    """Return the runs that start in a block, at or above a level.

    A run is followed up to the end of the samples around the block, 100 ms after it.

    Parameters
    ----------
    block
        Block to search.
    sign
        1 for positive values, −1 for negative ones.
    level
        Least level, in steps of 16-bit samples.
    """
    plateau, threshold = Plateau(), np.float32(level / _LEVELS)
    stop = block.before + block.frames
    for channel, plane in enumerate(block.around):
        is_high = plane >= threshold if sign > 0 else plane <= -threshold
        starts, lengths = _runs(is_high)
        is_counted = (lengths >= _LEAST_SAMPLES) & (starts >= block.before) & (starts < stop)
        starts, lengths = starts[is_counted], lengths[is_counted]
        is_steep = _points_beyond(plane, starts, lengths, sign, (level + 2) / _LEVELS)
        frames = starts - block.before + block.start
        every = ClippedRuns.of(lengths, frames, channel)
        plateau.merge(Plateau(every, ClippedRuns.of(lengths[is_steep], frames[is_steep], channel)))
    return plateau


def _runs(is_high: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the first frame and the length of each run of true values."""
    high = np.flatnonzero(is_high)
    if not len(high):
        return high, high
    borders = np.flatnonzero(np.diff(high) > 1)
    firsts = np.concatenate([[0], borders + 1])
    lasts = np.concatenate([borders, [len(high) - 1]])
    starts: npt.NDArray[np.intp] = high[firsts]
    return starts, high[lasts] - starts + 1


def _points_beyond(
    plane: npt.NDArray[np.float32],
    starts: npt.NDArray[np.intp],
    lengths: npt.NDArray[np.intp],
    sign: int,
    beyond: float,
) -> npt.NDArray[np.bool_]:
    """Return at which runs a straight line before or after them goes beyond a value.

    The second and the third sample beside the run differ, and the first two are not far apart:
    a step between plateaus is no slope.
    """
    result = np.zeros(len(starts), np.bool_)
    for towards in (-1, 1):
        beside = starts - 1 if towards < 0 else starts + lengths
        at = beside[:, None] + towards * np.arange(3)
        is_inside = (at >= 0).all(axis=1) & (at < len(plane)).all(axis=1)
        nearest, second, third = sign * plane[np.clip(at, 0, len(plane) - 1)].T.astype(np.float64)
        is_slope = np.abs(second - third) > 2 / _LEVELS
        is_step = np.abs(nearest - second) > _STEP * beyond
        result |= is_inside & is_slope & ~is_step & (2 * nearest - second > beyond)
    return result
