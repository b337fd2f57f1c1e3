"""Rows of CSV, JSON lines and Parquet, in blocks, with the row's place in the table.

Text is read by Python's own parsers, because they give the line at which a row begins:
without the line, a message about a table of 100,000 rows is useless.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from melmill.transforms.catalogue.cells import (
    Convert,
    column_type,
    from_arrow,
    from_json,
    from_text,
    json_type,
    text_type,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.rows.parquet_files import ParquetFile
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem, reading

#: Number of first rows of a CSV or JSON-lines table from which the columns' types are taken.
SAMPLE_ROWS = 10_000

#: File name endings of tables.
TABLE_EXTENSIONS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")

#: What to do about a key of JSON lines that the first rows lack; see :func:`read_blocks`.
_SET_ITS_TYPE = "set its type in catalogue.label_types: {{{name}: string}}"

_BLOCK_ROWS = 2_048
_PART_ROWS = 20_000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that does not follow its format; the message gives the reason."""

    message: str


NumberedRows = Iterator[tuple[int, Row | BrokenRow]]


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
    """

    start: int = 0
    stop: int = 0
    first_row: int = 0


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
    """

    places: Sequence[str]
    columns: Mapping[str, Any]
    convert: Convert
    broken: Mapping[int, str] = field(default_factory=dict)


def is_table(uri: str) -> bool:
    """Return whether a file is a table, by its name.

    Examples
    --------
    >>> is_table("s3://bucket/Songs.CSV.gz"), is_table("song.wav")
    (True, False)
    """
    return uri.lower().endswith(TABLE_EXTENSIONS)


def is_csv(uri: str) -> bool:
    """Return whether a table is CSV, by its name; cells of CSV hold no lists."""
    return uri.lower().endswith((".csv", ".csv.gz"))


def is_json_lines(uri: str) -> bool:
    """Return whether a table is JSON lines, by its name; JSON lines declare no columns."""
    return is_table(uri) and not is_csv(uri) and not _is_parquet(uri)


def read_column_types(uri: str, options: StorageOptions) -> list[tuple[str, str]]:
    """Return the names and types of a table's columns, from its footer or its first rows."""
    with reading(uri), _open(uri, options) as file:
        if _is_parquet(uri):
            return [(field.name, column_type(field.type)) for field in _parquet(file).schema_arrow]
        names, records = _records(file, uri)
        sample = [row for _, row in islice(records, SAMPLE_ROWS) if isinstance(row, dict)]
    names = names or list(dict.fromkeys(name for row in sample for name in row))
    infer_type = text_type if is_csv(uri) else json_type
    return [(name, infer_type([row.get(name) for row in sample])) for name in names]


def row_ranges(uri: str, options: StorageOptions) -> Iterator[RowRange]:
    """Yield the parts of a table, each of which can be read on its own."""
    if not _is_parquet(uri):
        yield RowRange()
        return
    with reading(uri), _open(uri, options) as file:
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
    """
    with reading(uri), _open(uri, options) as file:
        if _is_parquet(uri):
            yield from _parquet_blocks(file, part)
        else:
            yield from _text_blocks(file, uri, names, remedy)


def _open(uri: str, options: StorageOptions) -> Any:
    filesystem, path = open_filesystem(uri, options)
    return filesystem.open(path, "rb", compression="gzip" if uri.lower().endswith(".gz") else None)


def _is_parquet(uri: str) -> bool:
    return uri.lower().endswith(".parquet")


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


def _text_blocks(file: Any, uri: str, names: Sequence[str], remedy: str) -> Iterator[Block]:
    _, records = _records(file, uri)
    convert = from_text if is_csv(uri) else from_json
    while rows := list(islice(records, _BLOCK_ROWS)):
        _check_keys(uri, frozenset(names), rows, remedy)
        valid = [row if isinstance(row, dict) else {} for _, row in rows]
        columns = {name: [row.get(name) for row in valid] for name in names}
        broken = {i: row.message for i, (_, row) in enumerate(rows) if isinstance(row, BrokenRow)}
        yield Block([f"line {number}" for number, _ in rows], columns, convert, broken)


def _check_keys(
    uri: str, known: frozenset[str], rows: Iterable[tuple[int, Row | BrokenRow]], remedy: str
) -> None:
    for number, row in rows:
        if isinstance(row, dict) and not row.keys() <= known:
            new = next(name for name in row if name not in known)
            raise CatalogueError(
                f"{uri} line {number} has a key {new!r} that the first {SAMPLE_ROWS:,} rows lack;"
                f" {remedy.format(name=new)}"
            )


def _records(file: Any, uri: str) -> tuple[list[str], NumberedRows]:
    """Return the declared columns (none for JSON lines) and the numbered rows of a text table."""
    if not is_csv(uri):
        return [], _json_records(io.TextIOWrapper(file, "utf-8-sig", newline="\n"), uri)
    rows = _csv_rows(io.TextIOWrapper(file, "utf-8-sig", newline=""), uri)
    _, header = next(rows, (0, []))
    return header, _csv_records(rows, header, uri)


def _json_records(lines: Iterable[str], uri: str) -> NumberedRows:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BrokenRow(f"is not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, BrokenRow(f"is not a JSON object: {line[:80]!r}")


def _csv_rows(lines: Iterable[str], uri: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True)
    while True:
        number = reader.line_num + 1  # first line of the row: a quoted value may span lines
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CatalogueError(f"{uri} line {number} is not CSV: {error}") from error
        if row:
            yield number, row


def _csv_records(
    rows: Iterable[tuple[int, list[str]]], header: list[str], uri: str
) -> NumberedRows:
    for number, row in rows:
        if len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            yield (
                number,
                BrokenRow(
                    f"has {len(row)} values for {len(header)} columns;"
                    f" a value that holds a comma or a quote must be in quotes"
                ),
            )
