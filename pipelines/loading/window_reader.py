"""Reads the windows of a split: the row groups that are shuffled together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from melmill.pipelines.added_columns import Joining
from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.lane_order import Window
from melmill.transforms.loading.randomness import Int64Array
from melmill.transforms.rows.parquet import read_row_ranges
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.folders import Store


@dataclass(frozen=True)
class LoadedWindow:
    """The rows of a window in memory.

    Attributes
    ----------
    batches
        The rows of each block of the window.
    batch_of, row_of
        The number of the batch, and of the row in it, for each row of the window, int64 [rows].
    """

    batches: list[RowBatch]
    batch_of: Int64Array
    row_of: Int64Array

    def row(self, number: int) -> tuple[RowBatch, int]:
        """Return the batch that has a row of the window, and the row's number in it."""
        return self.batches[self.batch_of[number]], int(self.row_of[number])

    def column(self, name: str) -> Int64Array:
        """Return a column of numbers, in the order of the window, int64 [rows]."""
        rows = map(self.row, range(len(self.row_of)))
        return np.array([batch.columns[name][row] for batch, row in rows], np.int64)

    def in_order(self, order: Int64Array) -> LoadedWindow:
        """Return the window with its rows in another order."""
        return replace(self, batch_of=self.batch_of[order], row_of=self.row_of[order])


@dataclass(frozen=True)
class WindowReader:
    """Reads windows of a split from its Parquet files.

    Attributes
    ----------
    store, names
        The dataset, and the names of the split's files in it.
    columns
        The columns to read.
    joining
        Joins the added columns among those to give.
    verify
        Whether to verify the checksums of pages.
    """

    store: Store
    names: list[str]
    columns: list[str]
    joining: Joining
    verify: bool

    def read(self, window: Window, blocks: Blocks) -> LoadedWindow:
        """Return the rows of a window; raise ``DatasetError`` if a shard cannot be read.

        Parameters
        ----------
        window
            The window.
        blocks
            The blocks of the split.
        """
        starts = blocks.starts[window.blocks]
        batch_of = np.searchsorted(starts, window.rows, side="right") - 1
        batches = list(self._batches(window, blocks))
        return LoadedWindow(batches, batch_of, window.rows - starts[batch_of])

    def _batches(self, window: Window, blocks: Blocks) -> Iterator[RowBatch]:
        columns = {*self.columns, *self.joining.key}
        shards = blocks.shards[window.blocks]
        for shard in np.unique(shards):
            own = window.blocks[shards == shard]
            first = blocks.shard_starts[shard]
            starts, ends = (blocks.starts[own + i] - first for i in (0, 1))
            ranges = zip(starts.tolist(), ends.tolist(), strict=True)
            with self.store.reading_shard(self.names[shard]) as file:
                for batch in read_row_ranges(file, ranges, columns=columns, verify=self.verify):
                    yield self.joining.join(batch) if self.joining.names else batch
