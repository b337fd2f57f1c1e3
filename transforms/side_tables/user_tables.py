"""A user's table of values: CSV, JSON lines or Parquet, read in blocks with checked types.

The types are those of labels, and are found in the same way: Parquet declares them, and the first
rows of CSV and JSON lines decide them. A value that contradicts its column's type is an error that
names its line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from melmill.transforms.catalogue.cells import CONVERSION_ERRORS
from melmill.transforms.catalogue.row_blocks import (
    SAMPLE_ROWS,
    Block,
    read_blocks,
    read_column_types,
    row_ranges,
)
from melmill.transforms.catalogue.table_formats import (
    TABLE_EXTENSIONS,
    is_csv,
    is_json_lines,
    is_table,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.rows.columns import LABEL_TYPES, arrow_type
from melmill.transforms.store.filesystems import StorageOptions

#: Columns that :func:`read_values` adds: the number of the row, and its place in the table.
NUMBER, PLACE = "_number", "_place"

#: Columns that can be in a key, and their types.
KEY_TYPES = {"recording_id": "string", "uri": "string", "chunk_index": "int64", "channel": "int64"}

_REMEDY = "set its type with --type {name}=string"


@dataclass(frozen=True, slots=True)
class UserTable:
    """The description of an opened table.

    Attributes
    ----------
    uri
        URI of the table.
    key
        Columns that say what a row belongs to.
    columns
        Type of each column of values, by name.
    names
        Names of all columns.
    declared
        Names of the columns whose types the user gave; for them, more spellings are converted.
    storage_options
        Options of the store.
    """

    uri: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    names: tuple[str, ...]
    declared: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default=(), repr=False)

    @property
    def schema(self) -> pa.Schema:
        """Columns that :func:`read_values` yields."""
        types = {NUMBER: "int64", PLACE: "string", **{name: KEY_TYPES[name] for name in self.key}}
        columns = {**types, **self.columns}
        return pa.schema({name: arrow_type(kind) for name, kind in columns.items()})


def open_user_table(
    uri: str,
    key: tuple[str, ...],
    chosen: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    storage_options: StorageOptions = (),
) -> UserTable:
    """Return the description of a table, from its footer or its first rows.

    Parameters
    ----------
    uri
        Path or URL of the table.
    key
        Columns that say what a row belongs to.
    chosen
        Columns of values; empty for all columns that are not in a key.
    types
        Types of columns, by name; they override the types in the table.
    storage_options
        Options of the store.

    Raises
    ------
    CatalogueError
        If the table cannot be read, or lacks a column, or a column has another type than labels
        can have.
    """
    if not is_table(uri):
        raise CatalogueError(f"{uri}: is not a table; allowed: {', '.join(TABLE_EXTENSIONS)}")
    declared = dict(types or {})
    known = dict(_checked_names(uri, read_column_types(uri, storage_options)))
    if not known:
        raise CatalogueError(f"{uri}: has no rows, so there is nothing to add")
    _require_key(uri, key, known)
    # In JSON lines, a key may appear for the first time after the first rows.
    named = dict.fromkeys([*known, *declared] if is_json_lines(uri) else known)
    names = list(chosen) or [name for name in named if name not in KEY_TYPES]
    if unknown := [name for name in (*names, *declared) if name not in named]:
        raise CatalogueError(f"{uri}: has no column {unknown[0]!r}; its columns are {list(named)}")
    if not names:
        raise CatalogueError(f"{uri}: has no column besides {list(known)}; there is nothing to add")
    columns = {name: declared.get(name) or known[name] for name in names}
    _check_types(uri, columns)
    return UserTable(uri, key, columns, tuple(named), tuple(sorted(declared)), storage_options)


def _checked_names(uri: str, columns: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    seen: set[str] = set()
    for number, (name, _) in enumerate(columns, 1):
        if not name:
            raise CatalogueError(
                f"{uri}: column {number} has no name (a saved index?); give it a name or drop it"
            )
        if name.casefold() in seen:
            raise CatalogueError(f"{uri}: has more than one column {name!r}; rename all but one")
        seen.add(name.casefold())
    return columns


def _require_key(uri: str, key: tuple[str, ...], known: Collection[str]) -> None:
    for name in key:
        if name not in known:
            hints = {"recording_id": "--on recording_id", "uri": "--on uri"}
            other = next((hint for column, hint in hints.items() if column in known), None)
            hint = f"; it can be joined with {other}" if other and len(key) == 1 else ""
            raise CatalogueError(
                f"{uri}: has no column {name!r}, which says what a row belongs to; its columns are "
                f"{list(known)}{hint}"
            )


def _check_types(uri: str, columns: Mapping[str, str]) -> None:
    allowed = [t for t in LABEL_TYPES if not (is_csv(uri) and t.startswith("list<"))]
    for name, kind in columns.items():
        if name in KEY_TYPES:
            raise CatalogueError(f"{uri}: column {name!r} is part of a key and cannot be added")
        if kind not in allowed:
            raise CatalogueError(
                f"{uri}: column {name!r} cannot be added: its type is {kind}, and allowed are "
                f"{', '.join(allowed)}; leave it out with --columns, or set --type {name}=string"
            )


def read_values(table: UserTable) -> Iterator[pa.Table]:
    """Yield the table's rows in blocks, with the number and the place of each row.

    Raises
    ------
    CatalogueError
        If a row is not in the table's format, a key is missing, or a value contradicts its
        column's type. The message names the line.
    """
    number, options = 0, table.storage_options
    for part in row_ranges(table.uri, options):
        for block in read_blocks(table.uri, options, table.names, part, _REMEDY):
            yield _read_block(table, block, number)
            number += len(block.places)
    if not number:
        raise CatalogueError(f"{table.uri}: has no rows, so there is nothing to add")


def _read_block(table: UserTable, block: Block, first: int) -> pa.Table:
    for number, fault in sorted(block.broken.items()):
        raise CatalogueError(f"{table.uri} {block.places[number]} {fault}")
    arrays = [
        pa.array(range(first, first + len(block.places)), pa.int64()),
        pa.array(block.places, pa.string()),
    ]
    for name in table.key:
        keys = _values(table, block, name, KEY_TYPES[name])
        _require_values(table, block, name, keys)
        arrays.append(keys)
    arrays += [_values(table, block, name, kind) for name, kind in table.columns.items()]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _require_values(table: UserTable, block: Block, name: str, keys: pa.Array) -> None:
    for place, value in zip(block.places, keys.to_pylist(), strict=True):
        if value is None or value == "":
            raise CatalogueError(
                f"{table.uri} {place}: {name!r} is empty; each row must say what it belongs to"
            )


def _values(table: UserTable, block: Block, name: str, kind: str) -> pa.Array:
    cells, declared = block.columns.get(name), name in table.declared
    if cells is None:
        return pa.nulls(len(block.places), arrow_type(kind))
    try:
        return _convert(block, cells, kind, declared)
    except CONVERSION_ERRORS:
        for number, place in enumerate(block.places):
            cell = cells[number : number + 1]
            try:
                _convert(block, cell, kind, declared)
            except CONVERSION_ERRORS:
                raise _misfit(table, place, name, kind, cell[0]) from None
        raise


def _convert(block: Block, cells: Any, kind: str, declared: bool) -> pa.Array:
    if isinstance(cells, pa.Array):
        return cells.cast(arrow_type(kind))
    return pa.array(block.convert(cells, kind, declared), arrow_type(kind))


def _misfit(table: UserTable, place: str, name: str, kind: str, cell: Any) -> CatalogueError:
    value = cell.as_py() if hasattr(cell, "as_py") else cell
    where = f"{table.uri} {place}, column {name!r}: {value!r} is not {kind}"
    if name in table.key or name in table.declared:
        return CatalogueError(f"{where}; correct the value")
    return CatalogueError(
        f"{where}, the type of the first {SAMPLE_ROWS:,} rows; correct the value, or set "
        f"--type {name}=string"
    )
