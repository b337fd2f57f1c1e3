"""Sequences of rows from one or several splits, in the order of a loader: positions and rows.

A :class:`Mixture` is all that a loader needs to know. Its places follow from a position alone, so a
loader resumes anywhere without going through what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.blocks import Blocks, deal_blocks
from melmill.transforms.loading.lane_order import LaneOrder, LaneRows
from melmill.transforms.loading.lanes import Lanes, equal_lengths
from melmill.transforms.loading.randomness import Int64Array
from melmill.transforms.loading.repeats import Repeats
from melmill.transforms.loading.row_order import RowOrder

#: Number of rows after which the pattern of a mixture repeats; weights are rounded to its parts.
PATTERN_ROWS = 4096


@dataclass(frozen=True)
class Source:
    """A split that a loader reads.

    Attributes
    ----------
    blocks
        The blocks of the split.
    repeats
        How often each row occurs; ``None`` if each row occurs once.
    weight
        The share of the source in a mixture, in proportion to the other weights.
    """

    blocks: Blocks
    repeats: Repeats | None = None
    weight: float = 1.0

    def lanes(self, order: RowOrder, number: int) -> tuple[LaneRows, ...]:
        """Return the rows of each lane.

        Parameters
        ----------
        order
            The settings of the order.
        number
            The number of the source, on which the random choice depends.
        """
        # In a small split, blocks are smaller, so that there is one for each lane.
        block_rows = max(1, min(self.blocks.block_rows, self.blocks.rows // order.lanes))
        blocks = Blocks(self.blocks.shard_rows, block_rows)
        sums = blocks.starts if self.repeats is None else self.repeats.sums(blocks.starts)
        key = () if order.seed is None else (order.seed, number, "lanes")
        dealt = deal_blocks(np.diff(sums), order.lanes, *key)
        return tuple(LaneRows(blocks, own, self.repeats) for own in dealt)


@dataclass(frozen=True)
class Places:
    """Where the rows at some positions are, an array int64 [n] each.

    Attributes
    ----------
    lanes, sources, epochs
        The lane, the number of the source, and the epoch of the source.
    windows, numbers
        The window of the lane's rows of the source in that epoch, and the row's number in it.
    """

    lanes: Int64Array
    sources: Int64Array
    epochs: Int64Array
    windows: Int64Array
    numbers: Int64Array


def mixing_pattern(weights: Sequence[float], rows: int = PATTERN_ROWS) -> Int64Array:
    """Return the source of each row of a pattern; each source is spread evenly over it.

    >>> mixing_pattern([3, 1], 8).tolist()
    [0, 0, 1, 0, 0, 0, 1, 0]
    """
    shares = np.array(weights, np.float64) / sum(weights) * rows
    counts = np.floor(shares).astype(np.int64)
    missing = rows - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    sources = np.repeat(np.arange(len(counts)), counts)
    when = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    return sources[np.lexsort((sources, when))]


@dataclass(frozen=True)
class Mixture:
    """The order of the rows of one or several sources.

    Each lane has its blocks of every source. In a lane, the sources take turns row by row, in
    proportion to their weights. A source whose rows of the lane are used up begins its next epoch
    there, in a new order.

    Attributes
    ----------
    sources
        The sources.
    order
        The settings of the order.

    Raises
    ------
    ConfigError
        A weight is not positive, or too small beside the others, or a source is too small for the
        lanes.
    """

    sources: tuple[Source, ...]
    order: RowOrder
    _orders: dict[tuple[int, int, int], LaneOrder] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the sources."""
        for number, source in enumerate(self.sources):
            if not 0 < source.weight < float("inf"):
                raise ConfigError(f"source {number} has the weight {source.weight}; give one > 0")
            if len(self.sources) > 1 and not all(lane.rows for lane in self.parts[number]):
                raise ConfigError(
                    f"source {number} has {source.blocks.rows} rows, too few for the "
                    f"{self.order.lanes} lanes of a mixture; give a RowOrder with fewer lanes"
                )
        weights = [source.weight for source in self.sources]
        if without := {*range(len(weights))} - {*mixing_pattern(weights).tolist()}:
            number = min(without)
            raise ConfigError(
                f"source {number} has the weight {weights[number]} of {sum(weights):g}, and would "
                f"get no row; give it one row of {PATTERN_ROWS:,} or more"
            )

    @cached_property
    def parts(self) -> tuple[tuple[LaneRows, ...], ...]:
        """The rows of each lane, of each source."""
        return tuple(source.lanes(self.order, i) for i, source in enumerate(self.sources))

    @cached_property
    def rows(self) -> int:
        """The number of rows in an epoch: that of all sources."""
        return sum(lane.rows for lanes in self.parts for lane in lanes)

    @cached_property
    def _lanes(self) -> Lanes:
        if len(self.sources) == 1:
            lengths = tuple(lane.rows for lane in self.parts[0])
        else:
            lengths = equal_lengths(self.rows, self.order.lanes)
        return Lanes(lengths, self.order.turn_rows)

    @cached_property
    def _pattern(self) -> Int64Array:
        weights = [source.weight for source in self.sources]
        return mixing_pattern(weights, PATTERN_ROWS if len(weights) > 1 else 1)

    @cached_property
    def _occurrence(self) -> Int64Array:
        """How often the source of each row of the pattern occurred before in the pattern."""
        is_source = self._pattern[:, None] == np.arange(len(self.sources))
        counted = np.cumsum(is_source, axis=0, dtype=np.int64)
        return counted[np.arange(len(self._pattern)), self._pattern] - 1

    def places(self, epoch: int, positions: Int64Array) -> Places:
        """Return where the rows at positions of an epoch are.

        Parameters
        ----------
        epoch
            The epoch of the mixture, from 0.
        positions
            Positions in the epoch, from 0, int64 [n].
        """
        lanes, numbers = self._lanes.places(positions)
        # Lanes go on through the epochs of the mixture; their sources have epochs of their own.
        numbers = numbers + epoch * np.array(self._lanes.lengths, np.int64)[lanes]
        period, in_pattern = np.divmod(numbers, len(self._pattern))
        sources = self._pattern[in_pattern]
        counts = np.bincount(self._pattern, minlength=len(self.sources))
        numbers = period * counts[sources] + self._occurrence[in_pattern]
        lengths = np.array([[lane.rows for lane in part] for part in self.parts], np.int64)
        epochs, numbers = np.divmod(numbers, lengths[sources, lanes])
        windows = np.empty_like(numbers)
        keys = np.stack([sources, lanes, epochs], axis=1)
        distinct, group = np.unique(keys, axis=0, return_inverse=True)
        for i, key in enumerate(distinct.tolist()):
            own = group.reshape(-1) == i
            windows[own], numbers[own] = self.lane_order(*key).places(numbers[own])
        return Places(lanes, sources, epochs, windows, numbers)

    def lane_order(self, source: int, lane: int, epoch: int) -> LaneOrder:
        """Return the order of a source's rows in a lane, in an epoch of theirs; few are kept."""
        key = source, lane, epoch
        if key not in self._orders:
            for known in [k for k in list(self._orders) if k[:2] == key[:2] and k[2] < epoch - 1]:
                self._orders.pop(known, None)
            rows, seed = self.parts[source][lane], self.order.seed
            window_blocks = max(1, self.order.window_rows // rows.split.block_rows)
            names = (seed or 0, *key)
            is_shuffled = seed is not None
            self._orders[key] = LaneOrder(rows, window_blocks, names, is_shuffled=is_shuffled)
        return self._orders[key]
