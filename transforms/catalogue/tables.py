"""Tables as catalogues: CSV, JSON lines and Parquet with a ``uri`` column and labels.

The columns ``uri``, ``start`` and ``end`` (seconds) and ``split`` have a meaning; every other
column is a label. A label's type is fixed when the table is opened: Parquet declares it; for CSV
and JSON lines it comes from ``label_types`` or from the first ``SAMPLE_ROWS`` rows. A later value
that contradicts the type is never converted silently: it is a fault of its row, and the message
names the line. A row with a fault is still listed
(:attr:`~melmill.transforms.core.records.Recording.fault`); a problem of the whole table raises
an error.

In CSV an empty cell is null in every column; a word like ``NA`` or ``null`` is null in a
column of numbers or booleans. A column is converted to numbers only if nothing is lost:
``007``, and numbers of more than 15 digits, stay text. Dates in CSV and JSON lines stay text;
dates and timestamps in Parquet become ISO 8601 text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from melmill.transforms.catalogue.cells import CONVERSION_ERRORS
from melmill.transforms.catalogue.row_blocks import (
    SAMPLE_ROWS,
    Block,
    RowRange,
    is_csv,
    is_json_lines,
    read_blocks,
    read_column_types,
)
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.naming import digest, number_of, recording_id, resolve_uri
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import LABEL_TYPES, RESERVED_COLUMNS, LabelColumn
from melmill.transforms.store.filesystems import StorageOptions

#: Largest number of faults that a message lists.
_SHOWN_FAULTS = 10
#: Upper limit of seconds: no recording lasts 30 years, and larger sample numbers may overflow.
_END_OF_SECONDS = 1_000_000_000

_MEANINGS = {"uri": "string", "start": "double", "end": "double", "split": "string"}

#: Types that a column must not have if its meaning has the type of the key.
_NEVER = {"string": ("double", "bool", "binary"), "double": ("bool", "binary")}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's name and type; if the type is declared, more spellings are converted."""

    name: str
    type: str
    declared: bool


@dataclass(frozen=True, slots=True)
class _Misfit:
    """A cell that does not fit its column; the message gives the reason."""

    message: str


class _BadRowError(Exception):
    """The error for a row that names no recording."""

    def __init__(self, cause: Cause, message: str, uri: str = "") -> None:
        super().__init__(cause, message, uri)
        self.cause, self.message, self.uri = cause, message, uri


# Seconds count as declared: their numbers may be padded or written in any way.
_MEANING_COLUMNS = tuple(_Column(name, kind, kind == "double") for name, kind in _MEANINGS.items())


@dataclass(frozen=True, slots=True)
class Table:
    """The description of an opened table: all that a worker needs to read it.

    Attributes
    ----------
    uri, root
        URI of the table, and the directory at which its relative URIs start.
    label_columns
        All columns without a meaning of their own, in the table's order.
    declared
        Names of the label columns with a type from the user; for them, more spellings are
        converted.
    storage_options
        Options of the store.
    """

    uri: str
    root: str
    label_columns: tuple[LabelColumn, ...] = ()
    # Sorted, because a run's name is made from it.
    declared: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default=(), repr=False)


def open_table(
    uri: str,
    root: str,
    *,
    label_types: Mapping[str, str] | None = None,
    storage_options: StorageOptions = (),
) -> Table:
    """Return the description of a table, from its footer or its first rows.

    Parameters
    ----------
    uri, root
        URI of the table, and the directory at which its relative URIs start.
    label_types
        Types of label columns, by name; they override the types in the table.
    storage_options
        Options of the store.

    Raises
    ------
    CatalogueError
        If the table cannot be read, has no column ``uri``, or has a column that cannot
        be a label.
    """
    declared = label_types or {}
    columns = read_column_types(uri, storage_options)
    types = {n: kind for n, kind in {**dict(columns), **declared}.items() if n not in _MEANINGS}
    faults = [
        *_name_faults(uri, [name for name, _ in columns]),
        *_declared_faults(uri, dict(columns), declared),
        *_type_faults(uri, types),
        *_meaning_faults(uri, dict(columns)),
    ]
    if faults:
        raise CatalogueError(join_faults(uri, faults))
    labels = tuple(LabelColumn(name, kind) for name, kind in types.items())
    return Table(uri, root, labels, tuple(sorted(declared)), storage_options)


def list_rows(table: Table, part: RowRange) -> Iterator[Recording]:
    """Yield the recordings of a table's part, block by block; rows with a fault are included."""
    names = (*_MEANINGS, *(column.name for column in table.label_columns))
    for block in read_blocks(table.uri, table.storage_options, names, part):
        yield from _recordings(table, block)


def duplicate_message(a: Recording, b: Recording) -> str:
    """Return the message for two rows that name the same recording."""
    segment = "" if a.start_seconds is None and a.end_seconds is None else " (the same segment)"
    return (
        f"{a.origin or a.uri} and {b.origin or b.uri} both name {a.uri}{segment};"
        " remove one of them, or give each its own start and end"
    )


def join_faults(uri: str, faults: Sequence[str]) -> str:
    """Return the message for a catalogue's faults: the first faults, and the number of the rest.

    >>> join_faults("a.csv", ["a.csv has no column 'uri'"])
    "a.csv has no column 'uri'"
    """
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - _SHOWN_FAULTS:,} more"] if len(faults) > _SHOWN_FAULTS else []
    return "\n  ".join(
        [f"{uri}: {number_of(len(faults), 'fault')}", *faults[:_SHOWN_FAULTS], *more]
    )


def _name_faults(uri: str, names: Sequence[str]) -> Iterator[str]:
    if "uri" not in names:
        yield f"{uri} has no column 'uri'; its columns are {list(names)}"
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        # Column names of Delta tables are not case-sensitive.
        folded = name.casefold()
        if not name:
            yield (
                f"{uri}: column {number} has no name (a saved index?); give it a name or drop the"
                " column"
            )
        elif folded in seen:
            yield f"{uri} has more than one column {name!r}; rename all but one"
        elif name not in _MEANINGS and folded in RESERVED_COLUMNS:
            yield f"{uri}: {_reserved(name)}"
        seen.add(folded)


def _reserved(name: str) -> str:
    return (
        f"no label can be named {name!r}, because the training rows already have a column of"
        f" this name; rename the column (reserved: {', '.join(sorted(RESERVED_COLUMNS))})"
    )


def _declared_faults(
    uri: str, columns: Mapping[str, str], declared: Mapping[str, str]
) -> Iterator[str]:
    for name in declared:
        if name.casefold() in RESERVED_COLUMNS | _MEANINGS.keys():
            yield f"catalogue.label_types: {name!r} is not a label column of {uri}; remove it"
        # In JSON lines a key may appear for the first time after the first SAMPLE_ROWS rows.
        elif name not in columns and not is_json_lines(uri):
            yield f"catalogue.label_types: {uri} has no column {name!r}; it has {list(columns)}"


def _type_faults(uri: str, types: Mapping[str, str]) -> Iterator[str]:
    allowed = [t for t in LABEL_TYPES if not (is_csv(uri) and t.startswith("list<"))]
    for name, kind in types.items():
        if kind not in allowed:
            yield (
                f"{uri}: column {name!r} cannot be a label: its type is {kind}, but a label is one"
                f" of {', '.join(allowed)}; drop the column, or set catalogue.label_types"
            )


def _meaning_faults(uri: str, columns: Mapping[str, str]) -> Iterator[str]:
    """Yield the faults of columns whose type never fits their meaning; text may hold anything."""
    if is_csv(uri):
        return
    for name, meaning in _MEANINGS.items():
        kind = columns.get(name, meaning)
        if kind.startswith("list<") or kind.startswith("struct<") or kind in _NEVER[meaning]:
            yield f"{uri}: column {name!r} has the type {kind}, but must be {meaning}"


def _recordings(table: Table, block: Block) -> Iterator[Recording]:
    meanings = [_values(table, block, column) for column in _MEANING_COLUMNS]
    labels = [_values(table, block, column) for column in _labels(table)]
    names = [column.name for column in table.label_columns]
    rows = zip(*labels, strict=True) if labels else repeat((), len(block.places))
    file_name = table.uri.rpartition("/")[2]
    cells = zip(block.places, zip(*meanings, strict=True), rows, strict=True)
    for number, (place, meaning, row) in enumerate(cells):
        origin = f"{file_name} {place}"
        try:
            if number in block.broken:
                raise _BadRowError(Cause.BAD_ROW, f" {block.broken[number]}")
            uri, start, end, split = meaning
            misfits = [cell.message for cell in (split, *row) if isinstance(cell, _Misfit)]
            pairs = () if misfits else tuple(zip(names, row, strict=True))
            recording = _recording(table, origin, uri, start, end, split, pairs)
            yield _faulty(recording, Cause.BAD_ROW, "".join(misfits)) if misfits else recording
        except _BadRowError as error:
            # The row's place identifies it, because the row names no recording.
            identity = recording_id(origin), error.uri or table.uri, origin
            yield _faulty(Recording(*identity, origin=origin), error.cause, error.message)


def _faulty(recording: Recording, cause: Cause, message: str) -> Recording:
    full_message = recording.origin + message
    # A row with another fault, or with none, is a new version.
    fingerprint = f"fault:{digest(full_message)[:16]}"
    return replace(recording, split=None, fault=(cause, full_message), fingerprint=fingerprint)


def _recording(
    table: Table, origin: str, uri: Any, start: Any, end: Any, split: Any, labels: Any
) -> Recording:
    """Return the recording that a row names; raise ``_BadRowError`` if there is none."""
    misfits = [cell.message for cell in (uri, start, end) if isinstance(cell, _Misfit)]
    if misfits:
        raise _BadRowError(Cause.BAD_ROW, "".join(misfits))
    absolute, relative = _resolve(table, uri)
    if start is not None or end is not None:
        _check_segment(absolute, start, end)
    return Recording(
        recording_id=recording_id(relative, start, end),
        uri=absolute,
        relative_uri=relative,
        start_seconds=start,
        end_seconds=end,
        split=split or None,
        labels=labels,
        origin=origin,
    )


def _labels(table: Table) -> list[_Column]:
    return [_Column(c.name, c.type, c.name in table.declared) for c in table.label_columns]


def _values(table: Table, block: Block, column: _Column) -> Sequence[Any]:
    cells = block.columns.get(column.name)
    if cells is None:
        return [None] * len(block.places)
    try:
        return block.convert(cells, column.type, column.declared)
    except CONVERSION_ERRORS:
        return [_value(block, column, cells[i : i + 1]) for i in range(len(block.places))]


def _value(block: Block, column: _Column, cell: Any) -> Any:
    """Return a cell's value, or a misfit whose message says what to do."""
    try:
        return block.convert(cell, column.type, column.declared)[0]
    except CONVERSION_ERRORS:
        value = cell[0].as_py() if hasattr(cell[0], "as_py") else cell[0]
        fault = f", column {column.name!r}: {value!r} is not {column.type}"
        return _Misfit(fault if column.declared else fault + _remedy(column))


def _remedy(column: _Column) -> str:
    if column.name in _MEANINGS:
        return ""
    return (
        f", the type of the first {SAMPLE_ROWS:,} rows;"
        f" set catalogue.label_types: {{{column.name}: string}}, or correct the value"
    )


def _resolve(table: Table, uri: str | None) -> tuple[str, str]:
    if not uri:
        raise _BadRowError(Cause.BAD_ROW, ", column 'uri': it is empty")
    if "\0" in uri:
        raise _BadRowError(Cause.BAD_ROW, f", column 'uri': {uri!r} holds a zero character")
    try:
        return resolve_uri(table.root, uri)
    except CatalogueError as error:
        raise _BadRowError(Cause.BAD_ROW, f", column 'uri': {error}") from error


def _check_segment(uri: str, start: float | None, end: float | None) -> None:
    if start is not None and not 0 <= start < math.inf:
        message = f", column 'start': {start} is not a position in seconds"
        raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
    if end is not None and not (start or 0) < end < math.inf:
        message = f", column 'end': {end} does not come after the start, {start or 0}"
        raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
    for name, value in (("start", start), ("end", end)):
        if value is not None and value >= _END_OF_SECONDS:
            message = f", column {name!r}: {value:g} is not below {_END_OF_SECONDS:,} seconds"
            raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
