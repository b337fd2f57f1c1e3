"""Rows of JSON lines and of text with a separator, with the line at which each begins.

Python's own parsers read them, because they give the line: without the line, a message about a
table of 100,000 rows is useless.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from melmill.transforms.catalogue.table_formats import TableFormat
from melmill.transforms.core.errors import CatalogueError

Row = dict[str, Any]

_SEPARATOR_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}

#: A cell that a program wrote in quotes because it holds a quote.
_DOUBLED_QUOTES = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that does not follow its format; the message gives the reason."""

    message: str


#: Rows with their line numbers.
NumberedRows = Iterator[tuple[int, Row | BrokenRow]]


def without_nested(values: Mapping[str, Any]) -> Row:
    """Return the values that can be labels: those that are not nested.

    >>> without_nested({"a": 1, "b": {"c": 2}, "d": ["x"], "e": [{"f": 3}]})
    {'a': 1, 'd': ['x']}
    """
    return {
        name: value
        for name, value in values.items()
        if not any(isinstance(v, (dict, list)) for v in (value if isinstance(value, list) else ()))
        and not isinstance(value, dict)
    }


def read_text(file: Any, uri: str, form: TableFormat) -> tuple[list[str], NumberedRows]:
    """Return the declared columns (none for JSON lines) and the numbered rows of a text table.

    Raises
    ------
    CatalogueError
        If the text is not CSV; a row that cannot be read alone is a :class:`BrokenRow`.
    """
    if form.kind == "json":
        return [], _json_rows(io.TextIOWrapper(file, "utf-8-sig", newline="\n"))
    lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
    rows = _csv_rows(lines, uri, form.separator) if form.quoted else _raw_rows(lines, form)
    _, header = next(rows, (0, []))
    return header, _named(rows, header, form.separator)


def _json_rows(lines: Iterable[str]) -> NumberedRows:
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


def _csv_rows(lines: Iterable[str], uri: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True, delimiter=separator)
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


def _raw_rows(lines: Iterable[str], form: TableFormat) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        if text := line.rstrip("\r\n"):
            yield number, [_unquoted(cell) for cell in text.split(form.separator)]


def _unquoted(cell: str) -> str:
    """Return a cell of a table without quoting; doubled quotes show that a program quoted it.

    >>> _unquoted('"Yes" and no'), _unquoted('"A ""yes"" is a yes"')
    ('"Yes" and no', 'A "yes" is a yes')
    """
    return cell[1:-1].replace('""', '"') if _DOUBLED_QUOTES.fullmatch(cell) else cell


def _named(
    rows: Iterable[tuple[int, list[str]]], header: list[str], separator: str
) -> NumberedRows:
    name = _SEPARATOR_NAMES.get(separator, repr(separator))
    for number, row in rows:
        if len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            yield (
                number,
                BrokenRow(
                    f"has {len(row)} values for {len(header)} columns;"
                    f" a value that holds {name} or a quote must be in quotes"
                ),
            )
