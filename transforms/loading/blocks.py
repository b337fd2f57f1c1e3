"""Blocks of a split: the rows of a shard that are read together; and how lanes divide them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from melmill.transforms.loading.randomness import Int64Array, random_order


@dataclass(frozen=True)
class Blocks:
    """The blocks of a split: ``block_rows`` rows of a shard, fewer in the last block of a shard.

    Attributes
    ----------
    shard_rows
        The number of rows of each shard, in the order of the files.
    block_rows
        The number of rows in a block.
    """

    shard_rows: tuple[int, ...]
    block_rows: int

    @property
    def rows(self) -> int:
        """The number of rows of the split."""
        return sum(self.shard_rows)

    @cached_property
    def shard_starts(self) -> Int64Array:
        """The first row of each shard in the split."""
        return np.cumsum([0, *self.shard_rows], dtype=np.int64)[:-1]

    @cached_property
    def shards(self) -> Int64Array:
        """The number of the shard of each block."""
        blocks = [-(-rows // self.block_rows) for rows in self.shard_rows]
        return np.repeat(np.arange(len(blocks), dtype=np.int64), blocks)

    @cached_property
    def starts(self) -> Int64Array:
        """The first row of each block in the split, and the number of rows of the split."""
        in_shard = [np.arange(0, rows, self.block_rows) for rows in self.shard_rows]
        starts = [first + rows for first, rows in zip(self.shard_starts, in_shard, strict=True)]
        return np.concatenate([*starts, [self.rows]]).astype(np.int64)


def deal_blocks(weights: Int64Array, lanes: int, *key: int | str) -> list[Int64Array]:
    """Return the numbers of the blocks of each lane, sorted.

    With a key, blocks are dealt at random, so that lanes have nearly the same weight. Without a
    key, each lane has consecutive blocks.

    Parameters
    ----------
    weights
        The number of rows that each block gives on average, in any unit; a block without any goes
        to no lane.
    lanes
        The number of lanes.
    key
        The key of the random order.

    Examples
    --------
    >>> [blocks.tolist() for blocks in deal_blocks(np.array([4, 4, 0, 4, 2]), 2)]
    [[0, 1], [3, 4]]
    """
    used = np.flatnonzero(weights)
    if not key:
        return [np.asarray(part) for part in np.array_split(used, lanes)]
    used = used[random_order(len(used), *key)]
    used = used[np.argsort(-weights[used], kind="stable")]
    # There and back, so that no lane always gets the larger of two blocks.
    turn, place = np.divmod(np.arange(len(used)), lanes)
    lane = np.where(turn % 2, lanes - 1 - place, place)
    return [np.sort(used[lane == number]) for number in range(lanes)]
