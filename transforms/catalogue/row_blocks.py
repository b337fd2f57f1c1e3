"""Rows of tables in blocks, with the row's place in the table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from melmill.transforms.catalogue.archive_rows import (
    SAMPLE_MEMBERS,
    ArchivedRow,
    Archives,
    archive_names,
    archive_rows,
    sample_rows,
)
from melmill.transforms.catalogue.cells import (
    Convert,
    column_type,
    from_arrow,
    from_json,
    from_text,
    json_type,
    text_type,
)
from melmill.transforms.catalogue.kaldi_rows import KALDI_TYPES, kaldi_rows
from melmill.transforms.catalogue.lhotse_rows import lhotse_rows
from melmill.transforms.catalogue.table_formats import TableFormat, open_file, recognise_format
from melmill.transforms.catalogue.text_rows import BrokenRow, NumberedRows, Row, read_text
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import join_uri
from melmill.transforms.rows.columns import LABEL_TYPES
from melmill.transforms.store.filesystems import StorageOptions, reading
from melmill.transforms.store.parquet_files import ParquetFile

#: Number of first rows of a text table from which the columns' types are taken.
SAMPLE_ROWS = 10_000

#: What to do about a key of JSON lines that the first rows lack; see :func:`read_blocks`.
_SET_ITS_TYPE = "set its type in catalogue.label_types: {{{name}: string}}"

#: Largest number of keys that the message about late keys of an archive names.
_MOST_LATE_KEYS = 50

_BLOCK_ROWS = 2_048
_BLOCK_MEMBERS = 64
_PART_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class RowRange:
    """A part of a table: row groups of a Parquet file, or the whole file in other formats.

    Attributes
    ----------
    start, stop
        First row group, and the row group after the last; both 0 for a format without row
        groups.
    first_row
        Number of rows before the part.
    archive
        Name of the archive that is the part; ``""`` in other tables.
    first_only
        Whether the first rows of an archive are enough; see
        :func:`~melmill.transforms.catalogue.archive_rows.archive_rows`.
    """

    start: int = 0
    stop: int = 0
    first_row: int = 0
    archive: str = ""
    first_only: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A block of rows, stored by column, with the rows' places in the table.

    Attributes
    ----------
    places
        Place of each row: ``line 2``, ``line 3``, ``line 5``.
    columns
        Values in the form of the format; a column that the table lacks may be missing.
    convert
        Function that converts the values to Python values.
    broken
        Messages for rows that do not follow the table's format, by their number in the block.
    archived
        The rows of an archive with the versions of their audio; empty for any other table.
    """

    places: Sequence[str]
    columns: Mapping[str, Any]
    convert: Convert
    broken: Mapping[int, str] = field(default_factory=dict)
    archived: Sequence[ArchivedRow] = ()


def read_column_types(
    uri: str, options: StorageOptions, form: TableFormat | None = None
) -> list[tuple[str, str]]:
    """Return the names and types of a table's columns, from its footer or its first rows.

    Parameters
    ----------
    uri, options
        URI of the table, and its storage options.
    form
        Format of the table; ``None`` to recognise it.
    """
    form = form or recognise_format(uri, options)
    if form.kind == "kaldi":
        return [(name, kind) for name, kind in KALDI_TYPES.items() if name in form.columns]
    if form.kind == "parquet":
        with reading(uri), open_file(uri, options) as file:
            return [(field.name, column_type(field.type)) for field in _parquet(file).schema_arrow]
    with reading(uri), _open_records(uri, options, form) as (names, records):
        sample = [row for _, row in islice(records, SAMPLE_ROWS) if isinstance(row, dict)]
    if not names:
        # Each row of lhotse has a URI, or is a fault.
        first = ["uri"] if form.lhotse else []
        names = list(dict.fromkeys([*first, *(name for row in sample for name in row)]))
    infer_type = text_type if form.is_text else json_type
    return [(name, infer_type([row.get(name) for row in sample])) for name in names]


def archive_column_types(archives: Archives) -> list[tuple[str, str]]:
    """Return the names and types of the columns of archives, from their first rows."""
    sample = sample_rows(archives)
    names = dict.fromkeys(["uri", *(name for row in sample for name in row)])
    return [(name, json_type([row.get(name) for row in sample])) for name in names]


def archive_ranges(archives: Archives, deadline: float = math.inf) -> Iterator[RowRange]:
    """Yield the parts of archives: each archive is one."""
    return (RowRange(archive=name) for name in archive_names(archives, deadline))


def row_ranges(
    uri: str, options: StorageOptions, form: TableFormat | None = None
) -> Iterator[RowRange]:
    """Yield the parts of a table, each of which can be read on its own."""
    if (form or recognise_format(uri, options)).kind != "parquet":
        yield RowRange()
        return
    with reading(uri), open_file(uri, options) as file:
        footer = _parquet(file).metadata
        sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    start = first_row = rows = 0
    for i, size in enumerate(sizes, 1):
        rows += size
        if rows >= _PART_ROWS or i == len(sizes):
            yield RowRange(start, i, first_row)
            start, first_row, rows = i, first_row + rows, 0


def read_blocks(
    uri: str,
    options: StorageOptions,
    names: Sequence[str],
    part: RowRange,
    remedy: str = _SET_ITS_TYPE,
    form: TableFormat | None = None,
) -> Iterator[Block]:
    """Yield the rows of a table's part, in blocks.

    Parameters
    ----------
    uri, options
        URI of the table, and its storage options.
    names
        Columns that the table may have; any other key in JSON lines raises an error.
    part
        Part from :func:`row_ranges`.
    remedy
        What the error about another key says to do; ``{name}`` stands for the key.
    form
        Format of the table; ``None`` to recognise it.
    """
    form = form or recognise_format(uri, options)
    if form.kind == "parquet":
        with reading(uri), open_file(uri, options) as file:
            yield from _parquet_blocks(file, part)
    else:
        convert = from_text if form.is_text else from_json
        with reading(uri), _open_records(uri, options, form) as (_, records):
            for numbered in _in_blocks(records):
                rows = [(f"line {number}", row) for number, row in numbered]
                _check_keys(uri, frozenset(names), rows, remedy)
                yield _block(rows, names, convert)


def archive_blocks(
    archives: Archives,
    names: Sequence[str],
    part: RowRange,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
) -> Iterator[Block]:
    """Yield the rows of an archive, in blocks.

    Parameters
    ----------
    archives, part
        Archives, and the part that names one of them.
    names
        Columns that the rows may have; any other key raises an error.
    passed_over, deadline
        See :func:`~melmill.transforms.catalogue.archive_rows.archive_rows`.
    """
    uri = join_uri(archives.listing.root, part.archive)
    only = part.first_only
    listed = archive_rows(archives, part.archive, passed_over, deadline, first_only=only)
    while archived := list(islice(listed, _BLOCK_MEMBERS)):
        rows = [(row.place, row.row) for row in archived]
        if any(isinstance(row, dict) and not row.keys() <= set(names) for _, row in rows):
            raise CatalogueError(_late_keys(uri, chain(archived, listed), frozenset(names)))
        yield replace(_block(rows, names, from_json), archived=archived)


@contextmanager
def _open_records(
    uri: str, options: StorageOptions, form: TableFormat
) -> Iterator[tuple[list[str], NumberedRows]]:
    """Open the declared columns (none for JSON lines) and the numbered rows of a text table."""
    if form.kind == "kaldi":
        yield list(form.columns), kaldi_rows(uri, options, form.files)
        return
    with open_file(uri, options, form.compressed) as file:
        names, records = read_text(file, uri, form)
        if form.lhotse:
            records = lhotse_rows(records, uri, options, form.lhotse)
        yield names, records


def _parquet(file: Any) -> Any:
    return ParquetFile(file)


def _parquet_blocks(file: Any, part: RowRange) -> Iterator[Block]:
    row = part.first_row + 1
    groups = list(range(part.start, part.stop))
    for batch in _parquet(file).iter_batches(_BLOCK_ROWS, row_groups=groups):
        places = [f"row {number}" for number in range(row, row + batch.num_rows)]
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        yield Block(places, columns, from_arrow)
        row += batch.num_rows


def _in_blocks(records: NumberedRows) -> Iterator[list[tuple[int, Row | BrokenRow]]]:
    while rows := list(islice(records, _BLOCK_ROWS)):
        yield rows


def _block(
    rows: Sequence[tuple[str, Row | BrokenRow]], names: Sequence[str], convert: Convert
) -> Block:
    valid = [row if isinstance(row, dict) else {} for _, row in rows]
    columns = {name: [row.get(name) for row in valid] for name in names}
    broken = {i: row.message for i, (_, row) in enumerate(rows) if isinstance(row, BrokenRow)}
    return Block([place for place, _ in rows], columns, convert, broken)


def _check_keys(
    uri: str,
    known: frozenset[str],
    rows: Iterable[tuple[str, Row | BrokenRow]],
    remedy: str,
) -> None:
    for place, row in rows:
        if isinstance(row, dict) and not row.keys() <= known:
            new = next(name for name in row if name not in known)
            raise CatalogueError(
                f"{uri} {place} has a key {new!r} that the first {SAMPLE_ROWS:,} rows lack;"
                f" {remedy.format(name=new)}"
            )


def _late_keys(uri: str, rows: Iterable[ArchivedRow], known: frozenset[str]) -> str:
    """Return the message for all keys of an archive that the first rows lack."""
    values: dict[str, list[Any]] = {}
    places: dict[str, str] = {}
    for archived in rows:
        row = archived.row if isinstance(archived.row, dict) else {}
        for name in row.keys() - known:
            if name in values or len(values) < _MOST_LATE_KEYS:
                places.setdefault(name, archived.place)
                seen = values.setdefault(name, [])
                seen += [row[name]] if len(seen) < SAMPLE_MEMBERS else []
    keys = ", ".join(f"{name!r} ({places[name]})" for name in sorted(values))
    kinds = {name: json_type(values[name]) for name in sorted(values)}
    types = ", ".join(
        f"{_yaml(name)}: {kind if kind in LABEL_TYPES else 'string'}"
        for name, kind in kinds.items()
    )
    return (
        f"{uri} has keys that the first {SAMPLE_MEMBERS} rows lack: {keys}; set their types in"
        f" catalogue.label_types: {{{types}}}"
    )


def _yaml(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name)
