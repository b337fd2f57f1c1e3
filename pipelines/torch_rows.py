"""A split's rows for PyTorch's ``DataLoader``; imported only where torch is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from transforms.storage.parquet import count_row_groups, read_batch, read_rows
from transforms.storage.schema import RowBatch
from transforms.storage.store import Store


class SplitRows(IterableDataset[dict[str, Any]]):
    """Rows as dictionaries; each once among all workers of all ranks.

    They divide whole files while there are enough of them, since that is what disks and
    stores read well; else row groups. Some may get a few rows more than others, which
    distributed training must bear (``torch.distributed.algorithms.join``).

    Parameters
    ----------
    store, names
        The files.
    columns
        Which columns of theirs.
    rank, world_size
        Which of the processes that train together this one is.
    """

    def __init__(
        self, store: Store, names: list[str], columns: list[str], rank: int, world_size: int
    ) -> None:
        """Read nothing yet."""
        super().__init__()
        self._store, self._names, self._columns = store, names, columns
        self._rank, self._world_size = rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Read the files in another order, the same for all who read together."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read this worker's share."""
        for batch in self._batches(*self._place()):
            yield from self._rows(batch)

    def _place(self) -> tuple[int, int]:
        """Which reader this is, and of how many."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return self._rank * workers + worker, self._world_size * workers

    def _batches(self, number: int, readers: int) -> Iterator[RowBatch]:
        names = self._order()
        if len(names) >= readers:
            for name in names[number::readers]:
                with self._store.open(name) as file:
                    yield from read_rows(file)
            return
        for name, group in islice(self._groups(names), number, None, readers):
            with self._store.open(name) as file:
                yield read_batch(file, group)

    def _order(self) -> list[str]:
        if not self._epoch:
            return self._names
        order = np.random.default_rng(self._epoch).permutation(len(self._names))
        return [self._names[i] for i in order]

    def _groups(self, names: list[str]) -> Iterator[tuple[str, int]]:
        for name in names:
            with self._store.open(name) as file:
                number = count_row_groups(file)
            yield from ((name, group) for group in range(number))

    def _rows(self, batch: RowBatch) -> Iterator[dict[str, Any]]:
        others = [name for name in self._columns if name != "mel"]
        for i in range(batch.rows):
            row = {name: _plain(batch.columns[name][i]) for name in others}
            if "mel" in self._columns:
                row["mel"] = torch.from_numpy(batch.mel[i].copy())
            yield row


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
