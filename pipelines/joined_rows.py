"""Rows with added columns, as a ``pyarrow.dataset.Dataset`` that joins them while it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.dataset

from melmill.pipelines.added_columns import AddedColumns, Joining
from melmill.transforms.core.errors import DatasetError


def _names_in(expressions: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Return the names of the fields in expressions, or more."""
    # Arrow does not tell which fields an expression has; its text holds their names.
    text = " ".join(map(str, expressions))
    return [name for name in names if name in text]


@dataclass(frozen=True)
class JoinedScanner:
    """A scan of rows with added columns, with the methods of ``pyarrow.dataset.Scanner``.

    The values are joined in the thread that reads. (Arrow would read a Python generator ahead in
    another thread, and abort the interpreter if it ends meanwhile.)

    Attributes
    ----------
    rows
        The scanner of the stored rows.
    joining
        Joins the added columns.
    schema
        The columns of the joined rows.
    columns, filter
        The projection of the joined rows, and their filter; see Arrow's scanner.
    """

    rows: Any
    joining: Joining
    schema: pa.Schema
    columns: Any
    filter: Any

    @property
    def projected_schema(self) -> pa.Schema:
        """Return the columns of the result."""
        return self._chosen(self.schema.empty_table()).schema

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches."""
        # Not to_batches() of Arrow's scanner: it aborts an interpreter that ends in its middle.
        with self.rows.to_reader() as reader:
            for batch in reader:
                yield from self._joined(batch).to_batches()

    def _joined(self, batch: pa.RecordBatch) -> pa.Table:
        joined = dict(zip(batch.schema.names, batch.columns, strict=True))
        joined |= self.joining.values_of(joined)
        arrays = [joined[name] for name in self.schema.names]
        return self._chosen(pa.Table.from_arrays(arrays, schema=self.schema))

    def _chosen(self, table: pa.Table) -> pa.Table:
        if self.filter is None and not isinstance(self.columns, Mapping):
            return table.select(list(self.columns))
        rows = pyarrow.dataset.InMemoryDataset(table)
        return rows.to_table(columns=self.columns, filter=self.filter, use_threads=False)

    def to_reader(self) -> pa.RecordBatchReader:
        """Return a reader of the rows."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def to_table(self) -> pa.Table:
        """Return the rows as a table."""
        return pa.Table.from_batches(self.to_batches(), self.projected_schema)

    def head(self, num_rows: int) -> pa.Table:
        """Return the first rows."""
        batches, missing = [], num_rows
        for batch in self.to_batches():
            batches.append(batch.slice(0, missing))
            missing -= batches[-1].num_rows
            if missing <= 0:
                break
        return pa.Table.from_batches(batches, self.projected_schema).slice(0, num_rows)

    def count_rows(self) -> int:
        """Return the number of rows."""
        return sum(batch.num_rows for batch in self.to_batches())


class JoinedDataset(pyarrow.dataset.FileSystemDataset):
    """The rows of shards with the values of added columns.

    Polars (``scan_pyarrow_dataset``), DuckDB and pandas read it like any dataset of Arrow. The
    shards are streamed; the added columns that are read, of the rows' split, are in memory.

    Parameters
    ----------
    rows
        The rows as they are stored.
    added
        The added columns of the snapshot.
    split
        The split of the rows; ``None`` for all splits.
    """

    def __init__(
        self, rows: pyarrow.dataset.FileSystemDataset, added: AddedColumns, split: str | None
    ) -> None:
        """Set what is read; nothing is read yet."""
        super().__init__(list(rows.get_fragments()), rows.schema, rows.format, rows.filesystem)
        self._rows, self._added, self._split = rows, added, split

    @property
    def schema(self) -> pa.Schema:
        """Return the columns of the rows, and the added columns."""
        schema = self._rows.schema
        for field in self._added.fields():
            schema = schema.append(field)
        return schema

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """Return a scanner of the rows; see :meth:`pyarrow.dataset.Dataset.scanner`."""
        needed = self._needed(columns, filter)
        joining = self._added.joining(needed, self._split)
        if not joining.names:
            return self._rows.scanner(columns=columns, filter=filter, **options)
        stored = [n for n in self._rows.schema.names if n in needed or n in joining.key]
        # A filter on stored columns alone may skip whole row groups.
        is_stored = filter is not None and not _names_in([filter], joining.names)
        rows = self._rows.scanner(columns=stored, filter=filter if is_stored else None, **options)
        schema = pa.schema([self.schema.field(name) for name in (*stored, *joining.names)])
        chosen = self.schema.names if columns is None else columns
        return JoinedScanner(rows, joining, schema, chosen, None if is_stored else filter)

    def _needed(self, columns: Any, filter: Any) -> list[str]:
        """Return the names of all columns that a scan needs, or more."""
        names = self.schema.names
        if columns is None:
            return list(names)
        is_named = isinstance(columns, Mapping)
        expressions = [*columns.values(), filter] if is_named else [filter]
        chosen = {*(() if is_named else columns), *_names_in(expressions, names)}
        return [name for name in names if name in chosen]

    def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """Return the rows as a table; see :meth:`pyarrow.dataset.Dataset.to_table`."""
        return self.scanner(columns, filter, **options).to_table()

    def to_batches(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """Yield the rows in batches; see :meth:`pyarrow.dataset.Dataset.to_batches`."""
        return self.scanner(columns, filter, **options).to_batches()

    def head(self, num_rows: int, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """Return the first rows; see :meth:`pyarrow.dataset.Dataset.head`."""
        return self.scanner(columns, filter, **options).head(num_rows)

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """Return the number of rows; see :meth:`pyarrow.dataset.Dataset.count_rows`."""
        if filter is None:
            return int(self._rows.count_rows(**options))
        return int(self.scanner(["recording_id"], filter, **options).count_rows())

    def get_fragments(self, filter: Any = None) -> NoReturn:
        """Raise ``DatasetError``: the files themselves lack the added columns."""
        self._refuse("get_fragments")

    def take(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise ``DatasetError``: take rows of a table from :meth:`to_table`."""
        self._refuse("take")

    def filter(self, expression: Any) -> NoReturn:
        """Raise ``DatasetError``: give the filter to :meth:`scanner` or :meth:`to_table`."""
        self._refuse("filter")

    def join(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise ``DatasetError``: join a table from :meth:`to_table`."""
        self._refuse("join")

    def join_asof(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise ``DatasetError``: join a table from :meth:`to_table`."""
        self._refuse("join_asof")

    def sort_by(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise ``DatasetError``: sort a table from :meth:`to_table`."""
        self._refuse("sort_by")

    def replace_schema(self, schema: Any) -> NoReturn:
        """Raise ``DatasetError``: the schema is that of the rows and the added columns."""
        self._refuse("replace_schema")

    def _refuse(self, name: str) -> NoReturn:
        raise DatasetError(
            f"{name}: is not available for rows with added columns; use scanner(), to_batches() or "
            "to_table(), with columns and filter, or as_arrow(added=False) for the stored rows"
        )
