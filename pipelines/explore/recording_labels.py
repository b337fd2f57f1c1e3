"""The labels of recordings, which are only in the rows of the shards.

They are read once, in the background: of a large dataset, this takes minutes. Meanwhile, all that
needs no label is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pyarrow as pa

from melmill.pipelines.explore.index_database import IndexDatabase, column
from melmill.transforms.core.errors import UserError

#: Seconds that a request waits for the labels before it says how far they are.
_WAIT_SECONDS = 1.0


class LabelsNotReadError(UserError):
    """The labels are being read; the message says how far."""


class RecordingLabels:
    """The labels of a snapshot's recordings, as the table ``labels`` of a database.

    Parameters
    ----------
    database
        Database of the snapshot's index.
    names
        Names of the labels.
    """

    def __init__(self, database: IndexDatabase, names: Sequence[str]) -> None:
        self._database, self._names = database, tuple(names)
        self._thread = ThreadPoolExecutor(1, "labels")
        self._reading: Future[None] | None = None
        self._lock, self._is_closed = threading.Lock(), False
        self._rows_read = 0

    def require(self) -> None:
        """Return when the labels are read; start to read them if nobody did.

        Raises
        ------
        LabelsNotReadError
            They are not read after a second.
        DatasetError
            A shard is missing or damaged.
        """
        with self._lock:
            if self._reading is None:
                self._reading = self._thread.submit(self._make_table)
            reading = self._reading
        if wait([reading], _WAIT_SECONDS).not_done:
            ((rows,),) = self._database.rows("SELECT coalesce(sum(rows), 0) FROM recordings")
            raise LabelsNotReadError(
                f"The labels are being read from the shards: {self._rows_read:,} of {rows:,} rows "
                "are done."
            )
        try:
            reading.result()
        except BaseException:
            self._reading = None  # the next request tries again
            raise

    def close(self) -> None:
        """Stop reading."""
        self._is_closed = True
        self._thread.shutdown(cancel_futures=True)

    def _make_table(self) -> None:
        from melmill.pipelines.dataset import Dataset

        opened = self._database.opened
        store, version = opened.store, opened.snapshot.version
        dataset = Dataset(store.root, dict(store.storage_options), version=version)
        scanner = dataset.as_arrow(added=False).scanner(["recording_id", *self._names])
        # Each of a recording's rows has its labels.
        chosen = ", ".join(f"any_value({column(n)}) AS {column(n)}" for n in self._names)
        with scanner.to_reader() as reader:
            counted = pa.RecordBatchReader.from_batches(reader.schema, self._counted(reader))
            sql = f"SELECT recording_id, {chosen} FROM given GROUP BY recording_id"
            self._database.make_table("labels", counted, sql)

    def _counted(self, batches: Any) -> Iterator[Any]:
        for batch in batches:
            if self._is_closed:
                return  # nobody reads the table
            self._rows_read += batch.num_rows
            yield batch
