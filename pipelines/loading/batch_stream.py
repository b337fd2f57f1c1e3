"""The batches of a rank, divided among its workers; states say where to resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from melmill.pipelines.loading.row_loader import RowLoader
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.loading.randomness import Int64Array


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the workers of a rank, which take turns batch by batch."""

    number: int = 0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Start:
    """Where an iteration begins.

    Attributes
    ----------
    epoch
        The epoch.
    position
        The number of rows of the epoch that all ranks together gave before the iteration.
    worker
        The worker whose own state this is; ``None`` for a state of all workers.
    given
        The number of batches that this worker gave since.
    """

    epoch: int = 0
    position: int = 0
    worker: Worker | None = None
    given: int = 0


@dataclass(frozen=True)
class BatchStream:
    """The batches of a rank.

    In each step, every rank takes the next ``batch_size`` rows of the order, rank by rank.

    Attributes
    ----------
    loader
        Gives the rows.
    batch_size
        The number of rows in a batch of a rank.
    rank, world_size
        The number of this process, and how many processes train together.
    drop_last
        Whether to leave out the last step, if it lacks rows, so that all ranks have equally many
        batches of equal size.

    Raises
    ------
    ConfigError
        The batch size is not positive, or does not fit an order by length.
    """

    loader: RowLoader
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Check the batch size."""
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; give at least 1")
        order = self.loader.mixture.order
        if order.bucket_by and order.turn_rows % self.batch_size:
            raise ConfigError(
                f"RowOrder: turn_rows is {order.turn_rows}, and batch_size {self.batch_size}; with "
                "bucket_by, give a multiple of the batch size as turn_rows, or a batch has rows of "
                "several lanes, which differ in length"
            )

    @property
    def step_rows(self) -> int:
        """The number of rows that all ranks together take in a step."""
        return self.batch_size * self.world_size

    def count(self, position: int = 0) -> int:
        """Return the number of batches of this rank in an epoch, from a position on."""
        steps, rest = divmod(self.loader.rows - position, self.step_rows)
        return steps + (not self.drop_last and rest > self.rank * self.batch_size)

    def batches(self, start: Start, worker: Worker) -> Iterator[dict[str, Any]]:
        """Yield the batches of a worker, from a start on.

        Raises
        ------
        DatasetError
            A shard cannot be read, or the start is that of another worker.
        """
        if start.worker not in (None, worker):
            raise DatasetError(
                f"state: it is that of worker {start.worker.number} of {start.worker.workers}, and "
                f"this is worker {worker.number} of {worker.workers}; StatefulDataLoader resumes "
                "with the same num_workers. For another number, save state_dict(batches=...) of "
                "the rows themselves"
            )
        first = worker.number + start.given * worker.workers
        for step in range(first, self.count(start.position), worker.workers):
            yield self.loader.batch(start.epoch, self.positions(start.position, step))

    def positions(self, position: int, step: int) -> Int64Array:
        """Return the positions of this rank's rows in a step, counted from a position."""
        first = position + step * self.step_rows + self.rank * self.batch_size
        return np.arange(first, min(first + self.batch_size, self.loader.rows), dtype=np.int64)

    def state(self, start: Start, worker: Worker, given: int) -> dict[str, Any]:
        """Return the state after a worker gave some batches since the start.

        The state of a worker among several is its own: no other worker can resume from it.
        """
        given += start.given
        if worker.workers == 1:
            after = min(start.position + given * self.step_rows, self.loader.rows)
            return self.loader.identity.as_state(start.epoch, after)
        own = {"number": worker.number, "workers": worker.workers, "given": given}
        own["step_rows"] = self.step_rows
        return {**self.loader.identity.as_state(start.epoch, start.position), "worker": own}

    def start(self, state: Mapping[str, Any]) -> Start:
        """Return the start that a state says.

        Raises
        ------
        DatasetError
            The state is of another dataset, version, split or order, or of a worker that had other
            batches.
        """
        epoch, position = self.loader.identity.require_own(state)
        own = state.get("worker")
        if own is None:
            return Start(epoch, position)
        if own["step_rows"] != self.step_rows:
            raise DatasetError(
                f"state: a worker's steps had {own['step_rows']} rows, and these have "
                f"{self.step_rows}; resume with the same batch_size and world_size"
            )
        return Start(epoch, position, Worker(own["number"], own["workers"]), own["given"])
