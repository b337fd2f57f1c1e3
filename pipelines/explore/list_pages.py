"""The list of recordings: filtered, sorted, page by page; and its export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from melmill.pipelines.explore.explorer import Explorer
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
        sort = request.query_params.get("sort", "uri")
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

    def export(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        sort = request.query_params.get("sort", "uri")
        names = [name for name in table.fields if not name.startswith("label.")]
        names += [f"label.{label}" for label in table.labels]
        kind = request.path_params["kind"]
        if kind == "catalogue":  # what extract takes: labels have the names of their columns
            names = ["uri", *(f"label.{label}" for label in table.labels)]
        heads = [name.removeprefix("label.") if kind == "catalogue" else name for name in names]
        rows = table.all_rows(table.condition(shown), sort, names)
        name = f"{kind}.csv"
        return StreamingResponse(
            csv_text(heads, rows),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return [
        Route("/recordings", recordings),
        Route("/export/{kind:str}.csv", export),
    ]


def page_number(text: str) -> int:
    """Return the number of a page, from 1 on; raise ConfigError if the text is none."""
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise ConfigError(f"page: {text!r}: must be a whole number from 1 on")
    return int(text)


def _columns(request: Request, explorer: Explorer) -> list[str]:
    fields = explorer.table.fields
    names = request.query_params.get("columns", "")
    chosen = [name for name in names.split(",") if name] or [
        *_COLUMNS,
        *(name for name in _MEASURES if name in fields),
    ]
    for name in chosen:
        explorer.table.field(name)
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
