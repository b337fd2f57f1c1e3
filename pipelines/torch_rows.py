"""A split's rows for PyTorch's ``DataLoader``; imported only when torch is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from melmill.pipelines.added_columns import Joining
from melmill.pipelines.loading.batch_stream import BatchStream, Start, Worker
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.rows.parquet import count_row_groups, read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.folders import Store

#: Largest number of a ``DataLoader``'s workers.
_MOST_WORKERS = 1024


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


class OrderedBatches(IterableDataset[dict[str, Any]]):
    """The batches of a rank, in an order that is the same for any number of ranks and workers.

    Pass it to ``DataLoader(batches, batch_size=None, num_workers=4)``, or to torchdata's
    ``StatefulDataLoader``. It yields dictionaries of whole batches: a feature is a tensor [batch,
    ...] of its type, other numbers are tensors as PyTorch's ``default_collate`` makes them (int64,
    float64, bool), and strings and lists are lists.

    Parameters
    ----------
    stream
        The batches.
    """

    def __init__(self, stream: BatchStream) -> None:
        """Begin with epoch 0; nothing is read yet."""
        super().__init__()
        self._stream = stream
        # Epoch, position, and whether a worker has read: in shared memory, for workers.
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()
        # Whether this process, and each worker, has begun there: only the first pass does.
        self._begun = torch.zeros(1 + _MOST_WORKERS, dtype=torch.bool).share_memory_()
        self._begin(Start())

    def _begin(self, start: Start) -> None:
        """Let the next iteration begin at a start, in all workers."""
        self._shared.copy_(torch.tensor([start.epoch, start.position, 0]))
        self._begun.fill_(False)
        self._forget()

    def _forget(self, pending: Start | None = None) -> None:
        """Forget the iteration of this process; the next one begins at the pending start."""
        self._pending, self._given = pending, 0
        self._current: Start | None = None

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._shared[0])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which has its own order; all ranks must set the same epoch.

        An epoch begins at its first row, but the first pass after a state was loaded, with the
        state's epoch, begins at the state's position.
        """
        if epoch != self.epoch or bool(self._begun.any()):
            self._begin(Start(epoch))

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Return the state of this epoch, as plain values that JSON can hold.

        Parameters
        ----------
        batches
            The number of batches that training took since the iteration began. ``None`` for the
            number that this process read: right without workers, and in a worker, where
            ``StatefulDataLoader`` calls this method.

        Raises
        ------
        DatasetError
            Workers read the batches, so that this process does not know their number.
        """
        start = self._current or Start(self.epoch, int(self._shared[1]))
        if batches is not None:
            return self._stream.state(start, Worker(), batches)
        if get_worker_info() is None and int(self._shared[2]):
            raise DatasetError(
                "state_dict: workers read the batches; give the number of batches that training "
                "took since the iteration began, state_dict(batches=...), or use "
                "torchdata.stateful_dataloader.StatefulDataLoader"
            )
        return self._stream.state(start, _worker(), self._given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume at a state: the next iteration begins there.

        The number of ranks, of workers and the batch size may differ from those of the state.

        Raises
        ------
        DatasetError
            The state is of another dataset, version, split or order.
        """
        start = self._stream.start(state)
        if get_worker_info() is None and start.worker is None:
            self._begin(start)
        else:
            self._shared[0] = start.epoch
            self._forget(start)

    def __len__(self) -> int:
        """Return the number of batches of this rank in a whole epoch."""
        return self._stream.count()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return this worker's batches; raise ``DatasetError`` if a shard cannot be read."""
        start = self._next_start()
        self._forget()
        self._current = start
        info = get_worker_info()
        self._shared[2] = int(info is not None)
        self._begun[1 + info.id if info else 0] = True
        return self._batches(start)

    def _batches(self, start: Start) -> Iterator[dict[str, Any]]:
        for batch in self._stream.batches(start, _worker()):
            self._given += 1
            yield {name: _batch_tensor(values) for name, values in batch.items()}

    def _next_start(self) -> Start:
        info = get_worker_info()
        has_begun = bool(self._begun[1 + info.id if info else 0])
        return self._pending or Start(self.epoch, 0 if has_begun else int(self._shared[1]))


def _worker() -> Worker:
    info = get_worker_info()
    return Worker(info.id, info.num_workers) if info else Worker()


def _batch_tensor(values: Any) -> Any:
    """Return arrays and lists of numbers as tensors, and other lists as they are."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values)
    kinds = {float: torch.float64, bool: torch.bool, int: torch.int64}
    kind = kinds.get(type(values[0]))
    return values if kind is None else torch.tensor(values, dtype=kind)


def _tensor(value: Any) -> Any:
    """Return an array as a tensor, and a number, which is NaN for null, as a Python value."""
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value.item()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
