"""The index of a snapshot in DuckDB: views of its Parquet files, and tables beside them.

The view ``recordings`` has a column for each column of the index and for each reading, such as
``"clipping.share"``; its column ``place`` is the place of the recording in the order of the URIs.
At first, the view reads the index's files where they are: a question needs no loading. A table of
the same columns is made meanwhile, which answers large questions sooner.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow.parquet as pq

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import RECORDINGS, SCHEMAS
from melmill.transforms.measures.registry import MEASURES, meters_in, meters_of

#: Memory that DuckDB may use.
_MEMORY = "1GB"
#: Number of rows that are fetched at a time.
_ROWS_AT_ONCE = 10_000
#: Types of measures that are columns; events and fingerprints are read with their recording.
_COLUMN_TYPES = ("float", "int", "bool")


class IndexDatabase:
    """A database over the index of an opened snapshot.

    Parameters
    ----------
    opened
        The snapshot.
    folder
        Local folder for copies of files and for what does not fit into memory.

    Raises
    ------
    DatasetError
        A file of the index is missing or damaged.
    """

    def __init__(self, opened: OpenSnapshot, folder: Path) -> None:
        self.opened, self.folder = opened, folder
        self._database = connect(folder)
        self._storer = self._database.cursor()
        self._stored_in: Path | None = None
        self._storing: threading.Thread | None = None
        self._writing = threading.Lock()
        for kind in ("failures", "matches", "matched_recordings"):
            self._make_view(kind)
        files = self.files("recordings")
        self.run(f"CREATE VIEW index_rows AS {parquet_sql(files, self.missing)}")
        place = "ROW(uri, recording_id)"
        self.run(
            f"CREATE VIEW recordings AS SELECT *, {place} AS place FROM ({self._recordings_sql})"
        )
        self.run("CREATE TABLE verdicts (recording_id VARCHAR, verdict VARCHAR, note VARCHAR)")

    def close(self) -> None:
        """Free memory, and remove the table."""
        if self._storing is not None:
            self._storer.interrupt()
            self._storing.join()
        self._database.close()
        if self._stored_in is not None:
            self._stored_in.unlink(missing_ok=True)

    def _make_view(self, kind: str) -> None:
        if files := self.files(kind):
            self.run(f"CREATE VIEW {kind} AS {parquet_sql(files)}")
        else:
            empty = SCHEMAS[kind].empty_table()
            cursor = self._database.cursor().register(f"no_{kind}", empty)
            cursor.execute(f"CREATE TABLE {kind} AS FROM no_{kind}")

    def files(self, kind: str) -> list[str]:
        """Return the paths of a table's files on this machine, in order."""
        store, index = self.opened.store, self.opened.snapshot.index
        names = sorted(
            name
            for name in store.names(f"index/{index}")
            if name.rsplit("/", 1)[-1].startswith(f"{kind}-")
        )
        if kind == "recordings" and not names:
            version = self.opened.snapshot.version
            raise DatasetError(f"{store.root}: the index of version {version} is missing")
        return self.local_files(names)

    def local_files(self, names: Sequence[str]) -> list[str]:
        """Return the paths of files on this machine; those in a store are copied first."""
        store = self.opened.store
        if store.is_local:
            return [store.path(name) for name in names]
        return [str(self._copy(name)) for name in names]

    def _copy(self, name: str) -> Path:
        copied = self.folder / name
        if not copied.exists():  # the files of an index and of a side table never change
            copied.parent.mkdir(parents=True, exist_ok=True)
            partial = copied.with_name(uuid4().hex)
            partial.write_bytes(self.opened.store.read(name))
            partial.rename(copied)
        return copied

    @cached_property
    def _schema(self) -> Any:
        first = self.files("recordings")[0]
        try:
            return pq.read_schema(first)
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error

    @property
    def missing(self) -> list[str]:
        """Columns that an index of an older version lacks."""
        return [name for name in RECORDINGS.names if name not in self._schema.names]

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Names of the measures that are columns: those whose readings the index has."""
        if "measures" in self.missing:
            return ()
        meters = {*meters_in(self.opened.recipe.quality)}
        groups = self._schema.field("measures").type
        stored = {f"{group.name}.{own.name}" for group in groups for own in group.type}
        return tuple(
            name
            for name, measure in MEASURES.items()
            if measure.type in _COLUMN_TYPES and name in stored and {*meters_of([name])} <= meters
        )

    @property
    def _recordings_sql(self) -> str:
        readings = "".join(f", measures.{name} AS {column(name)}" for name in self.measured)
        return (
            f"SELECT * EXCLUDE (measures), measures IS NOT NULL AS is_measured{readings} "
            "FROM index_rows"
        )

    def store_recordings(self) -> None:
        """Start to make the table that takes the place of the view ``recordings``."""
        self._stored_in = self.folder / f"{uuid4().hex}.duckdb"
        self._storing = threading.Thread(target=self._store, daemon=True)
        self._storing.start()

    def _store(self) -> None:
        try:
            self._storer.execute(f"ATTACH '{quoted(str(self._stored_in))}' AS stored")
            rows = f"{self._recordings_sql} ORDER BY uri, recording_id"
            self._storer.execute(f"CREATE TABLE stored.recordings AS {rows}")
            # The number of a row is its place: a page in the order of URIs sorts no texts.
            rows = "SELECT *, rowid AS place FROM stored.recordings"
            self._storer.execute(f"CREATE OR REPLACE VIEW recordings AS {rows}")
        except duckdb.Error:
            # No space is left, the database is closed, or a file is damaged. The view answers as
            # before, and a page that reads a damaged file says so.
            return

    def make_table(self, name: str, rows: Any, sql: str) -> None:
        """Make a table from Arrow data: of a query in which the data has the name ``given``."""
        with self._explaining():
            cursor = self._database.cursor()
            cursor.register("given", rows)
            cursor.execute(f"CREATE TABLE {name} AS {sql}")

    def replace_rows(self, name: str, rows: Any) -> None:
        """Replace the rows of a table, at once, by Arrow data."""
        with self._writing, self._explaining():
            cursor = self._database.cursor()
            cursor.register("given", rows)
            cursor.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")

    def run(self, sql: str) -> None:
        """Run a statement that has no result."""
        with self._explaining():
            self._database.cursor().execute(sql)

    def batches(self, sql: str, values: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, some thousands at a time; any thread may do so."""
        with self._explaining():
            cursor = self._database.cursor().execute(sql, list(values))
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield rows

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return [row for rows in self.batches(sql, values) for row in rows]

    def records(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query, each by the names of its columns."""
        with self._explaining():
            cursor = self._database.cursor().execute(sql, list(values))
            names = [described[0] for described in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise DatasetError for an error of DuckDB, unless the query itself is wrong.

        A damaged file has no class of its own among DuckDB's errors.
        """
        try:
            yield
        except duckdb.ProgrammingError:
            raise
        except duckdb.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DatasetError:
        first_line = str(error).splitlines()[0]
        return DatasetError(
            f"{self.opened.store.root}: a file of version {self.opened.snapshot.version} is "
            f"missing or damaged ({first_line}); open the current version, or run melmill validate"
        )


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory that uses a folder for what does not fit into it."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / "duckdb"),
        "parquet_metadata_cache": "true",
        "autoinstall_known_extensions": "false",
    }
    return duckdb.connect(config=settings)


def parquet_sql(paths: Sequence[str], missing: Sequence[str] = ()) -> str:
    """Return a query for all rows of Parquet files, with null in columns that are missing."""
    listed = ", ".join(f"'{quoted(path)}'" for path in paths)
    nulls = "".join(f", NULL AS {column(name)}" for name in missing)
    return f"SELECT *{nulls} FROM read_parquet([{listed}])"


def value_of_recording(table: str, name: str) -> str:
    """Return a query for a value of a table, for the recording of the query around it."""
    return f"(SELECT {column(name)} FROM {table} t WHERE t.recording_id = recordings.recording_id)"


def quoted(text: str) -> str:
    """Return a text for single quotes in SQL."""
    return text.replace("'", "''")


def column(name: str) -> str:
    """Return the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'
