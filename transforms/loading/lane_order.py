"""The order of the rows of a lane in an epoch: blocks are shuffled, then rows in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.randomness import Int64Array, random_order
from melmill.transforms.loading.repeats import Repeats


@dataclass(frozen=True)
class Window:
    """The rows of a window, in their order.

    Attributes
    ----------
    blocks
        The numbers of the blocks to read, int64 [blocks], sorted.
    rows
        The numbers of the rows in the split, in the order of the window, int64 [rows]. A row may
        occur several times, or not at all.
    """

    blocks: Int64Array
    rows: Int64Array


@dataclass(frozen=True)
class LaneRows:
    """The rows of a split that belong to a lane, in every epoch.

    Attributes
    ----------
    split
        The blocks of the split.
    blocks
        The numbers of the lane's blocks, int64 [blocks], sorted.
    repeats
        How often each row of the split occurs; ``None`` if each occurs once.
    """

    split: Blocks
    blocks: Int64Array
    repeats: Repeats | None = None

    @cached_property
    def starts(self) -> Int64Array:
        """The first row of each block in the lane, and the number of different rows."""
        lengths = (np.diff(self.split.starts))[self.blocks]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    @cached_property
    def own_repeats(self) -> Repeats | None:
        """How often each row of the lane occurs."""
        return self.repeats and self.repeats.of_ranges(
            self.split.starts[self.blocks], self.split.starts[self.blocks + 1]
        )

    @cached_property
    def rows(self) -> int:
        """The number of rows in an epoch of the lane."""
        return int(self.starts[-1]) if self.own_repeats is None else self.own_repeats.total

    def in_split(self, rows: Int64Array) -> Int64Array:
        """Return the numbers in the split of some rows of the lane."""
        block = np.searchsorted(self.starts, rows, side="right") - 1
        numbers: Int64Array = self.split.starts[self.blocks[block]] + rows - self.starts[block]
        return numbers


class LaneOrder:
    """The order of the rows of a lane in an epoch.

    Parameters
    ----------
    lane
        The rows of the lane.
    window_blocks
        The number of blocks in a window.
    key
        The key of the random order, which includes the epoch.
    is_shuffled
        Whether rows come in a random order; otherwise they come in the order of the files.
    """

    def __init__(
        self, lane: LaneRows, window_blocks: int, key: Sequence[int | str], *, is_shuffled: bool
    ) -> None:
        """Order the blocks; takes memory for each block, and none for rows."""
        self._lane, self._window_blocks = lane, window_blocks
        self._key, self._is_shuffled = tuple(key), is_shuffled
        self._repeats = lane.own_repeats and lane.own_repeats.of_epoch(*key)
        starts = lane.starts if self._repeats is None else self._repeats.before(lane.starts)
        self._first, self._lengths = starts[:-1], np.diff(starts)
        used = np.flatnonzero(self._lengths)
        self._order = used[random_order(len(used), *key, "blocks")] if is_shuffled else used
        last = np.arange(window_blocks - 1, len(used) + window_blocks - 1, window_blocks)
        ends = np.cumsum(self._lengths[self._order])
        self._ends = ends[np.minimum(last, len(used) - 1)]

    def places(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the window of each row of the order, and the row's number in the window."""
        window = np.searchsorted(self._ends, rows, side="right")
        begin = np.where(window > 0, self._ends[window - 1], 0)
        return window, rows - begin

    def window(self, number: int) -> Window:
        """Return the rows of a window."""
        first = number * self._window_blocks
        blocks = self._order[first : first + self._window_blocks]
        rows = np.concatenate([self._rows_of(block) for block in blocks])
        if self._is_shuffled:
            rows = rows[random_order(len(rows), *self._key, "window", number)]
        return Window(np.sort(self._lane.blocks[blocks]), self._lane.in_split(rows))

    def _rows_of(self, block: int) -> Int64Array:
        rows = np.arange(self._lengths[block], dtype=np.int64) + self._first[block]
        return rows if self._repeats is None else self._repeats.rows(rows)
