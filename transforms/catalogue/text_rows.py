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
from itertools import chain, pairwise
from typing import Any

from melmill.transforms.catalogue.table_formats import TableFormat
from melmill.transforms.core.errors import CatalogueError

Row = dict[str, Any]

_SEPARATOR_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}

#: A cell that a program wrote in quotes because it holds a quote, or nothing.
_DOUBLED_QUOTES = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"|""')

#: A line in which a program's quoted value begins and does not end, and a line that ends one.
_OPENED = re.compile(r'(?:^|\t)"(?:[^"]|"")*$')
_CLOSED = re.compile(r'(?:[^"]|"")*"(?:\t|$)')

#: The advice for a table whose quotes are letters.
_NO_QUOTES = (
    "in this table a value cannot hold a tab or a line break, because the names of its columns are"
    " not in quotes: remove tabs and line breaks from values, or write the table with all names and"
    " values in quotes"
)


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
    rows = _csv_rows(lines, uri, form.separator) if form.quoted else _tab_rows(lines)
    _, header = next(rows, (0, []))
    return header, _named(rows, header, form)


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


def _tab_rows(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Yield the names and the cells of a table without quoting, or broken rows."""
    numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, 1))
    width, inside = 0, False
    for (number, text), (_, following) in pairwise(chain(numbered, [(0, None)])):
        if not text:
            continue
        cells, fault = text.split("\t"), ""
        if width and (inside or '"' in text):
            fault, inside = _fault_of_quotes(text, following, width, inside)
            cells = [_unquoted(cell) for cell in cells]
        width = width or len(cells)
        yield number, BrokenRow(f"{fault}; {_NO_QUOTES}") if fault else cells


def _fault_of_quotes(
    text: str, following: str | None, width: int, inside: bool
) -> tuple[str, bool]:
    """Return a line's fault, if any, and whether the next line may be inside a quoted value.

    A quote that begins a value is a letter if the next line is a row of its own. If not, a program
    wrote a value with a line break, and neither line is a row.
    """
    opened = bool(_OPENED.search(text))
    is_full = text.count("\t") + 1 == width
    if inside and _CLOSED.match(text):
        return "may be the rest of a value that begins with a quote in a line before", opened
    if inside and not is_full:
        return "", True
    if opened and not (is_full and (following is None or _is_a_row(following, width))):
        return "has a value that begins with a quote and may go on in the next line", True
    return "", False


def _is_a_row(text: str, width: int) -> bool:
    return bool(text) and text.count("\t") + 1 == width and not _CLOSED.match(text)


def _unquoted(cell: str) -> str:
    """Return a cell of a table without quoting; doubled quotes show that a program quoted it.

    >>> _unquoted('"Yes" and no'), _unquoted('"A ""yes"" is a yes"'), _unquoted('""')
    ('"Yes" and no', 'A "yes" is a yes', '')
    """
    return cell[1:-1].replace('""', '"') if _DOUBLED_QUOTES.fullmatch(cell) else cell


def _named(rows: Iterable[tuple[int, Any]], header: list[str], form: TableFormat) -> NumberedRows:
    name = _SEPARATOR_NAMES.get(form.separator, repr(form.separator))
    quoting = f"a value that holds {name} or a quote must be in quotes"
    for number, row in rows:
        if isinstance(row, BrokenRow):
            yield number, row
        elif len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            count = f"has {len(row)} values for {len(header)} columns"
            yield number, BrokenRow(f"{count}; {quoting if form.quoted else _NO_QUOTES}")
