"""A split's rows for PyTorch's ``DataLoader``; imported only where torch is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from melmill.transforms.rows.parquet import count_row_groups, read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the processes that train together one is."""

    rank: int
    world_size: int


class SplitRows(IterableDataset[dict[str, Any]]):
    """Rows as dictionaries; each once among all workers of all ranks.

    Each takes as many whole files as all can have, since that is what disks and stores
    read well; the files left over are divided by row groups. Files and row groups are not
    all equally long, so some get more rows than others, and of a small split perhaps none:
    distributed training must bear that (``torch.distributed.algorithms.join``).

    Parameters
    ----------
    store, names
        The files.
    columns
        Which columns of theirs.
    share
        Whose rows these are.
    verify
        Whether pages' checksums are verified.
    """

    def __init__(
        self, store: Store, names: list[str], columns: list[str], share: Share, verify: bool
    ) -> None:
        """Read nothing yet."""
        super().__init__()
        self._store, self._names, self._columns = store, names, columns
        self._share, self._verify = share, verify
        # Shared, so that workers that are kept from one epoch to the next hear of it.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Read the files in another order, the same for all who read together."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read this worker's share; ``DatasetError`` names a shard that cannot be read."""
        for batch in self._batches(*self._place()):
            yield from self._rows(batch)

    def _place(self) -> tuple[int, int]:
        """Which reader this is, and of how many."""
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
                mine = range((number - before) % readers, groups, readers)
                yield from self._read(file, mine)
            before += groups

    def _read(self, file: IO[bytes], groups: range | None = None) -> Iterator[RowBatch]:
        return read_rows(file, groups, columns=self._columns, verify=self._verify)

    def _order(self) -> list[str]:
        epoch = int(self._epoch)
        if not epoch:
            return self._names
        order = np.random.default_rng(epoch).permutation(len(self._names))
        return [self._names[i] for i in order]

    def _rows(self, batch: RowBatch) -> Iterator[dict[str, Any]]:
        others = [name for name in self._columns if name != "mel"]
        for i in range(batch.rows):
            row = {name: _plain(batch.columns[name][i]) for name in others}
            if "mel" in self._columns:
                row["mel"] = torch.from_numpy(batch.mel[i].copy())
            yield row


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
