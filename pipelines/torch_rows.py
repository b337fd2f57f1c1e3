"""A split's rows for PyTorch's ``DataLoader``; imported only when torch is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from melmill.pipelines.added_columns import Joining
from melmill.transforms.rows.parquet import count_row_groups, read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class Share:
    """The rank of a process among the processes that train together."""

    rank: int
    world_size: int


class SplitRows(IterableDataset[dict[str, Any]]):
    """The rows of a split as dictionaries; all workers of all ranks together read each row once.

    Each worker reads the same number of whole files, because disks and stores read whole files
    fast. The remaining files are divided by row groups. Files and row groups differ in length, so
    some workers get more rows than others, and a worker may get no rows of a small split.
    Distributed training must handle this (``torch.distributed.algorithms.join``).

    Parameters
    ----------
    store, names
        The store, and the names of the files in it.
    columns
        The columns to read.
    share
        The rank of this process, and the number of processes.
    verify
        Whether to verify the checksums of pages.
    joining
        Joins the added columns among `columns`.
    """

    def __init__(
        self,
        store: Store,
        names: list[str],
        columns: list[str],
        share: Share,
        verify: bool,
        joining: Joining,
    ) -> None:
        """Set the files to read; nothing is read yet."""
        super().__init__()
        self._joining = joining
        self._store, self._names, self._columns = store, names, columns
        self._share, self._verify = share, verify
        # In shared memory, so that persistent workers see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Change the order of the files; all ranks must set the same epoch."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this worker's rows; raise ``DatasetError`` if a shard cannot be read."""
        for batch in self._batches(*self._reader()):
            yield from self._rows(batch)

    def _reader(self) -> tuple[int, int]:
        """Return the number of this reader, and the number of all readers."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return self._share.rank * workers + worker, self._share.world_size * workers

    def _batches(self, number: int, readers: int) -> Iterator[RowBatch]:
        names = self._order()
        whole = len(names) // readers * readers
        for name in names[:whole][number::readers]:
            with self._store.reading_shard(name) as file:
                yield from self._read(file)
        before = 0
        for name in names[whole:]:
            with self._store.reading_shard(name) as file:
                groups = count_row_groups(file)
                own_groups = range((number - before) % readers, groups, readers)
                yield from self._read(file, own_groups)
            before += groups

    def _read(self, file: IO[bytes], groups: range | None = None) -> Iterator[RowBatch]:
        stored = {*self._columns, *self._joining.key}
        for batch in read_rows(file, groups, columns=stored, verify=self._verify):
            yield self._joining.join(batch) if self._joining.names else batch

    def _order(self) -> list[str]:
        epoch = int(self._epoch)
        if not epoch:
            return self._names
        order = np.random.default_rng(epoch).permutation(len(self._names))
        return [self._names[i] for i in order]

    def _rows(self, batch: RowBatch) -> Iterator[dict[str, Any]]:
        for i in range(batch.rows):
            row = {name: _plain(values[i]) for name, values in batch.columns.items()}
            row |= {name: _tensor(values[i]) for name, values in batch.features.items()}
            yield {name: row[name] for name in self._columns}


def _tensor(value: Any) -> Any:
    """Return an array as a tensor, and a number, which is NaN for null, as a Python value."""
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value.item()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
