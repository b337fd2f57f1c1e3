"""Tables as catalogues: CSV, JSON lines and Parquet with a ``uri`` column and labels.

The columns ``uri``, ``start`` and ``end`` (seconds) and ``split`` have a meaning; every
other column is a label. A label's type is settled once, when the table is opened: Parquet
declares it; in CSV and JSON lines the first ``SAMPLE_ROWS`` rows show it, unless
``label_types`` says it. A later value that contradicts the type is an error that names
its line, never a silent conversion.

In CSV an empty cell is null in every column, and so is a word like ``NA`` or ``null`` in a
column of numbers or booleans. A column becomes numbers only if nothing is lost by it:
``007``, and numbers of more than 15 digits, stay text. Dates stay the text that they are;
dates and timestamps in Parquet become ISO 8601 text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from transforms.errors import CatalogueError
from transforms.records import Recording
from transforms.storage.cells import CONVERSION_ERRORS
from transforms.storage.columns import LABEL_TYPES, RESERVED_COLUMNS, LabelColumn
from transforms.storage.filesystems import StorageOptions
from transforms.storage.naming import recording_id, resolve_uri
from transforms.storage.row_blocks import (
    SAMPLE_ROWS,
    Block,
    RowRange,
    is_csv,
    is_json_lines,
    read_blocks,
    read_column_types,
)

_MEANINGS = {"uri": "string", "start": "double", "end": "double", "split": "string"}


@dataclass(frozen=True, slots=True)
class _Column:
    """How a column is converted: generously, where it is certain what it is."""

    name: str
    type: str
    declared: bool


# However the numbers of seconds are padded or written, seconds are what they are.
_MEANT = tuple(_Column(name, kind, kind == "double") for name, kind in _MEANINGS.items())


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was opened once: all that a worker needs to read it.

    Attributes
    ----------
    uri, root
        The table, and the directory that its relative URIs start from.
    label_columns
        Every column without a meaning of its own, in the table's order.
    declared
        The label columns whose types the user gave; their cells are converted generously.
    storage_options
        How the store is reached.
    """

    uri: str
    root: str
    label_columns: tuple[LabelColumn, ...] = ()
    # In the order of the names: a run's name is made of it.
    declared: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default=(), repr=False)


def open_table(
    uri: str,
    root: str,
    *,
    label_types: Mapping[str, str] | None = None,
    storage_options: StorageOptions = (),
) -> Table:
    """Settle what a table's label columns are; reads a footer, or the first rows.

    Parameters
    ----------
    uri, root
        The table, and the directory that its relative URIs start from.
    label_types
        Types of label columns, by name, that overrule what the table shows.
    storage_options
        How the store is reached.

    Raises
    ------
    CatalogueError
        If the table cannot be read, has no column ``uri``, or has a column that cannot
        be a label.
    """
    given = label_types or {}
    found = read_column_types(uri, storage_options)
    _check_names(uri, [name for name, _ in found])
    _check_given(uri, dict(found), given)
    types = {n: kind for n, kind in {**dict(found), **given}.items() if n not in _MEANINGS}
    _check_types(uri, types)
    labels = tuple(LabelColumn(name, kind) for name, kind in types.items())
    return Table(uri, root, labels, tuple(sorted(given)), storage_options)


def list_rows(table: Table, part: RowRange) -> Iterator[Recording]:
    """Read one part of a table, a block of rows at a time.

    Raises
    ------
    CatalogueError
        If a row cannot be understood; the message names its line, column and value.
    """
    names = (*_MEANINGS, *(column.name for column in table.label_columns))
    for block in read_blocks(table.uri, table.storage_options, names, part):
        yield from _recordings(table, block)


def duplicate_message(a: Recording, b: Recording) -> str:
    """Say that two rows name one recording, and what to do about it."""
    segment = "" if a.start_seconds is None and a.end_seconds is None else " (the same segment)"
    return (
        f"{a.origin or a.uri} and {b.origin or b.uri} both name {a.uri}{segment};"
        " remove one, or give each its own start and end"
    )


def _check_names(uri: str, names: Sequence[str]) -> None:
    if "uri" not in names:
        raise CatalogueError(f"{uri} has no column 'uri'; its columns are {list(names)}")
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        # Delta tables do not tell upper case from lower.
        folded = name.casefold()
        if not name:
            raise CatalogueError(f"{uri}: column {number} has no name (an index that was saved?)")
        if folded in seen:
            raise CatalogueError(f"{uri} has more than one column {name!r}; rename one")
        if name not in _MEANINGS and folded in RESERVED_COLUMNS:
            raise CatalogueError(f"{uri}: {_reserved(name)}")
        seen.add(folded)


def _reserved(name: str) -> str:
    return (
        f"no label can be named {name!r}, because the training rows have such a column"
        f" themselves; rename it (reserved: {', '.join(sorted(RESERVED_COLUMNS))})"
    )


def _check_given(uri: str, found: Mapping[str, str], given: Mapping[str, str]) -> None:
    for name in given:
        if name.casefold() in RESERVED_COLUMNS | _MEANINGS.keys():
            raise CatalogueError(f"catalogue.label_types: {name!r} is no label column of {uri}")
        # A key of JSON lines may turn up later than in the rows that were looked at.
        if name not in found and not is_json_lines(uri):
            raise CatalogueError(
                f"catalogue.label_types: {uri} has no column {name!r}; it has {list(found)}"
            )


def _check_types(uri: str, types: Mapping[str, str]) -> None:
    allowed = [t for t in LABEL_TYPES if not (is_csv(uri) and t.startswith("list<"))]
    for name, kind in types.items():
        if kind not in allowed:
            raise CatalogueError(
                f"{uri}: column {name!r} cannot be a label: its type is {kind}, but a label is one"
                f" of {', '.join(allowed)}; drop the column, or set catalogue.label_types"
            )


def _recordings(table: Table, block: Block) -> Iterator[Recording]:
    meant = [_values(table, block, column) for column in _MEANT]
    labels = [_values(table, block, column) for column in _labels(table)]
    names = [column.name for column in table.label_columns]
    rows = zip(*labels, strict=True) if labels else repeat((), len(block.places))
    file_name = table.uri.rpartition("/")[2]
    for place, uri, start, end, split, row in zip(block.places, *meant, rows, strict=True):
        absolute, relative = _resolve(table, place, uri)
        if start is not None or end is not None:
            _check_segment(table, place, start, end)
        yield Recording(
            recording_id=recording_id(relative, start, end),
            uri=absolute,
            relative_uri=relative,
            start_seconds=start,
            end_seconds=end,
            split=split or None,
            labels=tuple(zip(names, row, strict=True)),
            origin=f"{file_name} {place}",
        )


def _labels(table: Table) -> list[_Column]:
    return [_Column(c.name, c.type, c.name in table.declared) for c in table.label_columns]


def _values(table: Table, block: Block, column: _Column) -> Sequence[Any]:
    cells = block.columns.get(column.name)
    if cells is None:
        return [None] * len(block.places)
    try:
        return block.convert(cells, column.type, column.declared)
    except CONVERSION_ERRORS as error:
        raise CatalogueError(f"{table.uri} {_misfit(block, column, cells)}") from error


def _misfit(block: Block, column: _Column, cells: Any) -> str:
    """Find the first cell that does not fit its column, and say what to do about it."""
    for i, place in enumerate(block.places):
        try:
            block.convert(cells[i : i + 1], column.type, column.declared)
        except CONVERSION_ERRORS:
            value = cells[i].as_py() if hasattr(cells[i], "as_py") else cells[i]
            fault = f"{place}, column {column.name!r}: {value!r} is not {column.type}"
            return fault if column.declared else fault + _remedy(column)
    return f"column {column.name!r} does not fit {column.type}"


def _remedy(column: _Column) -> str:
    if column.name in _MEANINGS:
        return ""
    return (
        f", which the first {SAMPLE_ROWS:,} rows are;"
        f" set catalogue.label_types: {{{column.name}: string}}, or correct it"
    )


def _resolve(table: Table, place: str, uri: str | None) -> tuple[str, str]:
    if not uri:
        raise CatalogueError(f"{table.uri} {place}, column 'uri': it is empty")
    try:
        return resolve_uri(table.root, uri)
    except CatalogueError as error:
        raise CatalogueError(f"{table.uri} {place}, column 'uri': {error}") from error


def _check_segment(table: Table, place: str, start: float | None, end: float | None) -> None:
    where = f"{table.uri} {place}, column"
    if start is not None and not 0 <= start < math.inf:
        raise CatalogueError(f"{where} 'start': {start} is no position in seconds")
    if end is not None and not (start or 0) < end < math.inf:
        raise CatalogueError(f"{where} 'end': {end} does not come after the start, {start or 0}")
