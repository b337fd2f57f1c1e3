"""The list of recordings: filtered, sorted, page by page; and its export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Condition
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.transforms.core.errors import ConfigError

#: Number of recordings on a page.
PAGE = 50
_COLUMNS = ("uri", "status", "split", "seconds", "codec", "sample_rate_hz", "channels")
_MEASURES = ("loudness.integrated", "level.peak", "clipping.share")


def routes(explorer: Explorer) -> list[Route]:
    """Return the addresses of the list."""

    def recordings(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        condition = table.condition(shown)
        count, seconds = table.count(condition)
        sort = _sort(request)
        number = page_number(request.query_params.get("page", "1"))
        columns = _columns(request, explorer)
        rows = table.page(condition, sort, columns, (number - 1) * PAGE, PAGE)
        return explorer.page(
            request,
            "recordings.html",
            shown=shown,
            count=count,
            seconds=seconds,
            sort=sort,
            page=number,
            pages=max(1, -(-count // PAGE)),
            columns=[table.fields[name] for name in columns],
            chosen=request.query_params.get("columns"),
            rows=rows,
        )

    def recording_rows(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        names = [*table.fields]
        rows = table.all_rows(table.condition(shown), _sort(request), names)
        guarded = ([for_people(value) for value in row] for row in rows)
        return download("recordings.csv", csv_text(names, guarded))

    def catalogue(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        condition = table.condition(shown)
        _require_catalogue(table, condition)
        rows = table.labelled_uris(condition, _sort(request))
        return download("catalogue.jsonl", (json.dumps(row) + "\n" for row in rows))

    return [
        Route("/recordings", recordings),
        Route("/export/recordings.csv", recording_rows),
        Route("/export/catalogue.jsonl", catalogue),
    ]


def _sort(request: Request) -> str:
    return request.query_params.get("sort", "uri")


def _require_catalogue(table: RecordingTable, condition: Condition) -> None:
    """Raise ConfigError if a catalogue of the recordings would say less than the dataset's own."""
    segments = table.count(condition & Condition("seconds < frames / sample_rate_hz - 0.001"))[0]
    without = table.count(condition & Condition("coalesce(rows, 0) = 0"))[0]
    if segments:
        raise ConfigError(
            f"{segments:,} of these recordings are segments of files, and the index does not hold "
            "where they start: take their lines from the dataset's catalogue, "
            f"{table.opened.snapshot.catalogue}"
        )
    if table.labels and without:
        raise ConfigError(
            f"{without:,} of these recordings have no rows, and labels are only in rows: add the "
            "filter rows=1.. to leave them out"
        )


def download(name: str, text: Iterator[str]) -> Response:
    """Return a file to store."""
    return StreamingResponse(
        text,
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def for_people(value: Any) -> Any:
    """Return a value for a spreadsheet, which runs texts with certain first letters as formulas.

    >>> for_people("=1+1"), for_people("song"), for_people(-3)
    ("'=1+1", 'song', -3)
    """
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value


def page_number(text: str) -> int:
    """Return the number of a page, from 1 on; raise ConfigError if the text is none."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise ConfigError(f"page: {text!r}: must be a whole number from 1 on")
    return int(text)


def _columns(request: Request, explorer: Explorer) -> list[str]:
    fields = explorer.table.fields
    names = request.query_params.get("columns", "")
    chosen = [name for name in names.split("\n") if name] or [
        *_COLUMNS,
        *(name for name in _MEASURES if name in fields),
    ]
    for name in chosen:
        explorer.table.field(name, "columns")
    # The URI is the link to the recording.
    return ["uri", *(name for name in dict.fromkeys(chosen) if name != "uri")]


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield a table as CSV, line by line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(heads)
    for row in rows:
        writer.writerow(["" if value is None else value for value in row])
        if buffer.tell() > 1 << 16:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
