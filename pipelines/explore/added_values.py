"""The columns of a snapshot that ``melmill add-columns`` added, for the explorer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pyarrow.compute as pc

from melmill.pipelines.explore.chunk_rows import Chunk
from melmill.pipelines.explore.index_database import (
    IndexDatabase,
    parquet_sql,
    value_of_recording,
)
from melmill.transforms.core.naming import bucket
from melmill.transforms.side_tables.side_table import SideTable, list_parts, read_file


class AddedValues:
    """The values of a snapshot's added columns.

    Those of recordings are views of a database, which read the side tables' files. Those of rows
    are read for one chunk at a time.

    Parameters
    ----------
    database
        Database of the snapshot's index.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database, self._lock = database, threading.Lock()
        self._is_ready = False
        side_tables = database.opened.snapshot.side_tables
        self._of_recordings = [table for table in side_tables if not table.is_by_row]
        self._of_rows = [table for table in side_tables if table.is_by_row]

    @cached_property
    def types(self) -> dict[str, str]:
        """Type of each column with a value for each recording, by its name."""
        return {name: kind for table in self._of_recordings for name, kind in table.columns.items()}

    def sql(self, name: str) -> str:
        """Return a query for a value of a column, for the recording of the query around it."""
        numbers = (i for i, table in enumerate(self._of_recordings) if name in table.columns)
        return value_of_recording(f"added_{next(numbers)}", name)

    def require(self) -> None:
        """Make the views, unless they are there.

        Raises
        ------
        DatasetError
            A file of a side table is missing.
        """
        with self._lock:
            if not self._is_ready:
                for number, table in enumerate(self._of_recordings):
                    names = list_parts(self._database.opened.store, table)
                    files = parquet_sql(self._database.local_files(names))
                    self._database.run(f"CREATE OR REPLACE VIEW added_{number} AS {files}")
                self._is_ready = True

    def of_recording(self, recording_id: str) -> dict[str, Any]:
        """Return the values of a recording by name; see :meth:`of_chunk`."""
        values: dict[str, Any] = {}
        for table in self._of_recordings:
            values |= self._row(table, {"recording_id": recording_id})
        return values

    def of_chunk(self, recording_id: str, chunk: Chunk) -> dict[str, Any]:
        """Return the values of a chunk and of its recording by name; ``None`` for no value.

        Reads the part of each side table that holds the recording.

        Raises
        ------
        DatasetError
            A file of a side table is missing or damaged.
        """
        key: dict[str, Any] = {"recording_id": recording_id, "chunk_index": chunk.chunk_index}
        key["channel"] = chunk.channel
        values = self.of_recording(recording_id)
        for table in self._of_rows:
            values |= self._row(table, {name: key[name] for name in table.key})
        return values

    def _row(self, table: SideTable, key: Mapping[str, Any]) -> dict[str, Any]:
        store, names = self._database.opened.store, list(table.columns)
        part = list_parts(store, table)[bucket(key["recording_id"], table.parts)]
        rows = read_file(store, part, [*key, *names])
        for name, value in key.items():
            rows = rows.filter(pc.equal(rows[name], value))
        (values,) = rows.select(names).slice(0, 1).to_pylist() or [dict.fromkeys(names)]
        return dict(values)
