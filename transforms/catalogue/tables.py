"""Tables as catalogues: CSV, JSON lines and Parquet with a ``uri`` column and labels.

The columns ``uri``, ``start`` and ``end`` (seconds) and ``split`` have a meaning; every other
column is a label. A label's type is settled once, when the table is opened: Parquet declares it; in
CSV and JSON lines the first ``SAMPLE_ROWS`` rows show it, unless ``label_types`` says it. A later
value that contradicts the type is that row's fault, which names its line, never a silent
conversion. A row with a fault is listed all the same
(:attr:`~melmill.transforms.core.records.Recording.fault`); what is wrong with the table as a whole
is an error.

In CSV an empty cell is null in every column, and so is a word like ``NA`` or ``null`` in a
column of numbers or booleans. A column becomes numbers only if nothing is lost by it:
``007``, and numbers of more than 15 digits, stay text. Dates stay the text that they are;
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
from melmill.transforms.core.naming import digest, recording_id, resolve_uri
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import LABEL_TYPES, RESERVED_COLUMNS, LabelColumn
from melmill.transforms.store.filesystems import StorageOptions

#: Faults of a table that are told one by one.
_SHOWN = 10
#: No recording lasts 30 years; and samples are counted in numbers that overflow somewhere.
_END_OF_SECONDS = 1_000_000_000

_MEANINGS = {"uri": "string", "start": "double", "end": "double", "split": "string"}

#: Types that hold nothing of a meaning.
_NEVER = {"string": ("double", "bool", "binary"), "double": ("bool", "binary")}


@dataclass(frozen=True, slots=True)
class _Column:
    """How a column is converted: generously, where it is certain what it is."""

    name: str
    type: str
    declared: bool


@dataclass(frozen=True, slots=True)
class _Misfit:
    """A cell that does not fit its column, and why."""

    message: str


class _BadRowError(Exception):
    """A row that names no recording."""

    def __init__(self, cause: Cause, message: str, uri: str = "") -> None:
        super().__init__(cause, message, uri)
        self.cause, self.message, self.uri = cause, message, uri


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
    types = {n: kind for n, kind in {**dict(found), **given}.items() if n not in _MEANINGS}
    faults = [
        *_name_faults(uri, [name for name, _ in found]),
        *_given_faults(uri, dict(found), given),
        *_type_faults(uri, types),
        *_meaning_faults(uri, dict(found)),
    ]
    if faults:
        raise CatalogueError(join_faults(uri, faults))
    labels = tuple(LabelColumn(name, kind) for name, kind in types.items())
    return Table(uri, root, labels, tuple(sorted(given)), storage_options)


def list_rows(table: Table, part: RowRange) -> Iterator[Recording]:
    """Read one part of a table, a block of rows at a time; rows with a fault are listed, too."""
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


def join_faults(uri: str, faults: Sequence[str]) -> str:
    """Say all that is wrong with a catalogue, or how much more there is.

    >>> join_faults("a.csv", ["a.csv has no column 'uri'"])
    "a.csv has no column 'uri'"
    """
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
    return "\n  ".join([f"{uri}: {len(faults):,} faults", *faults[:_SHOWN], *more])


def _name_faults(uri: str, names: Sequence[str]) -> Iterator[str]:
    if "uri" not in names:
        yield f"{uri} has no column 'uri'; its columns are {list(names)}"
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        # Delta tables do not tell upper case from lower.
        folded = name.casefold()
        if not name:
            yield f"{uri}: column {number} has no name (an index that was saved?)"
        elif folded in seen:
            yield f"{uri} has more than one column {name!r}; rename one"
        elif name not in _MEANINGS and folded in RESERVED_COLUMNS:
            yield f"{uri}: {_reserved(name)}"
        seen.add(folded)


def _reserved(name: str) -> str:
    return (
        f"no label can be named {name!r}, because the training rows have such a column"
        f" themselves; rename it (reserved: {', '.join(sorted(RESERVED_COLUMNS))})"
    )


def _given_faults(uri: str, found: Mapping[str, str], given: Mapping[str, str]) -> Iterator[str]:
    for name in given:
        if name.casefold() in RESERVED_COLUMNS | _MEANINGS.keys():
            yield f"catalogue.label_types: {name!r} is no label column of {uri}"
        # A key of JSON lines may turn up later than in the rows that were looked at.
        elif name not in found and not is_json_lines(uri):
            yield f"catalogue.label_types: {uri} has no column {name!r}; it has {list(found)}"


def _type_faults(uri: str, types: Mapping[str, str]) -> Iterator[str]:
    allowed = [t for t in LABEL_TYPES if not (is_csv(uri) and t.startswith("list<"))]
    for name, kind in types.items():
        if kind not in allowed:
            yield (
                f"{uri}: column {name!r} cannot be a label: its type is {kind}, but a label is one"
                f" of {', '.join(allowed)}; drop the column, or set catalogue.label_types"
            )


def _meaning_faults(uri: str, found: Mapping[str, str]) -> Iterator[str]:
    """Find columns of which no value can be what the column means; text may be anything."""
    if is_csv(uri):
        return
    for name, meaning in _MEANINGS.items():
        kind = found.get(name, meaning)
        if kind.startswith("list<") or kind.startswith("struct<") or kind in _NEVER[meaning]:
            yield f"{uri}: column {name!r} is of the type {kind}, and must be {meaning}"


def _recordings(table: Table, block: Block) -> Iterator[Recording]:
    meant = [_values(table, block, column) for column in _MEANT]
    labels = [_values(table, block, column) for column in _labels(table)]
    names = [column.name for column in table.label_columns]
    rows = zip(*labels, strict=True) if labels else repeat((), len(block.places))
    file_name = table.uri.rpartition("/")[2]
    cells = zip(block.places, zip(*meant, strict=True), rows, strict=True)
    for number, (place, meaning, row) in enumerate(cells):
        origin = f"{file_name} {place}"
        try:
            if number in block.broken:
                raise _BadRowError(Cause.BAD_ROW, f" {block.broken[number]}")
            uri, start, end, split = meaning
            misfits = [cell.message for cell in (split, *row) if isinstance(cell, _Misfit)]
            told = () if misfits else tuple(zip(names, row, strict=True))
            recording = _recording(table, origin, uri, start, end, split, told)
            yield _faulty(recording, Cause.BAD_ROW, "".join(misfits)) if misfits else recording
        except _BadRowError as error:
            # No other row is told by this one's place.
            identity = recording_id(origin), error.uri or table.uri, origin
            yield _faulty(Recording(*identity, origin=origin), error.cause, error.message)


def _faulty(recording: Recording, cause: Cause, message: str) -> Recording:
    said = recording.origin + message
    # Mended, or broken otherwise, the row is another version of itself.
    fingerprint = f"fault:{digest(said)[:16]}"
    return replace(recording, split=None, fault=(cause, said), fingerprint=fingerprint)


def _recording(
    table: Table, origin: str, uri: Any, start: Any, end: Any, split: Any, labels: Any
) -> Recording:
    """Find which recording a row names; ``_BadRowError`` if none."""
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
    """Convert one cell, or say what is wrong with it and what to do about it."""
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
        f", which the first {SAMPLE_ROWS:,} rows are;"
        f" set catalogue.label_types: {{{column.name}: string}}, or correct it"
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
        message = f", column 'start': {start} is no position in seconds"
        raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
    if end is not None and not (start or 0) < end < math.inf:
        message = f", column 'end': {end} does not come after the start, {start or 0}"
        raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
    for name, value in (("start", start), ("end", end)):
        if value is not None and value >= _END_OF_SECONDS:
            message = f", column {name!r}: {value:g} is not below {_END_OF_SECONDS:,} seconds"
            raise _BadRowError(Cause.BAD_SEGMENT, message, uri)
