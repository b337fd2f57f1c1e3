"""Walls of chunks: a sample, a row for each value of a label, or the most unusual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from melmill.pipelines.explore.chunk_context import PAGE, ChunkContext
from melmill.pipelines.explore.chunk_walls import (
    HAS_ROWS,
    Wall,
    count_chunks,
    hang_wall,
    sample_chunks,
    unusual_chunks,
)
from melmill.pipelines.explore.explorer import OTHER_PARAMETERS
from melmill.pipelines.explore.filters import ALWAYS, Condition, Field, read_filter, term
from melmill.pipelines.explore.list_pages import page_number
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.transforms.core.errors import ConfigError, UserError

#: Number of pictures in a row of a value, and of such rows.
STRIP, STRIPS = 8, 12
#: Parameters of addresses that are no terms of a filter.
_OWN = ("by", "feature", "range")


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of a wall under a heading.

    Attributes
    ----------
    wall
        Chunks.
    value
        Value that their recordings have in common; ``None`` if the wall is not divided.
    recordings, chunks
        Numbers of all recordings with this value, and of their chunks.
    """

    wall: Wall
    value: str | None = None
    recordings: int = 0
    chunks: int = 0


def routes(context: ChunkContext) -> list[Route]:
    """Return the addresses of walls."""

    def wall(request: Request) -> Response:
        return _wall(context, request)

    def progress(request: Request) -> Response:
        table = context.explorer.table
        name = context.features(table).array(request.query_params.get("feature")).name
        search = context.unusual.search(table.version, name)
        return JSONResponse({"read": search.read, "done": search.is_done})

    return [Route("/chunks", wall), Route("/chunks/unusual-progress", progress)]


def _wall(context: ChunkContext, request: Request) -> Response:
    table, query = context.explorer.table, request.query_params
    shown = read_filter(query.multi_items(), (*OTHER_PARAMETERS, *_OWN))
    condition, by = table.condition(shown), query.get("by", "")
    recordings, total = count_chunks(table, condition)
    values: dict[str, Any] = {
        "shown": shown,
        "recordings": recordings,
        "total": total,
        "by": by,
        "kept": {name: query.get(name) or None for name in _OWN},
    }
    if not total:
        values["has_rows"] = bool(count_chunks(table, ALWAYS)[1])
        return context.explorer.page(request, "no_chunks.html", **values)
    values |= {
        "page": page_number(request.query_params.get("page", "1")),
        "fields": _dividing_fields(table),
        "search": None,
    }
    values |= context.look(request)
    if by == "unusual":
        values |= _unusual(context, condition, values)
    elif by:
        values |= _divided(context, condition, by, values["page"])
    else:
        picks = sample_chunks(table, condition, (values["page"] - 1) * PAGE, PAGE)
        strip = Strip(hang_wall(table, context.reader, picks))
        values |= {"strips": [strip], "pages": -(-total // PAGE)}
    return context.explorer.page(request, "chunks.html", **values)


def _unusual(context: ChunkContext, condition: Condition, values: dict[str, Any]) -> dict[str, Any]:
    """Return the most unusual chunks, or the search for them if it has not ended."""
    table, chosen = context.explorer.table, values["feature"]
    name = context.features(table).array(chosen and chosen.name).name
    search = context.unusual.search(table.version, name)
    if not search.is_done:
        _, to_read = count_chunks(table, ALWAYS)
        return {"strips": [], "pages": 1, "search": search, "to_read": to_read}
    try:
        patterns = context.unusual.result(table.version, name)
    except UserError as error:
        return {"strips": [Strip(Wall((), (str(error),)))], "pages": 1, "status": 400}
    picks = unusual_chunks(table, condition, patterns.chunks)
    first = (values["page"] - 1) * PAGE
    strip = Strip(hang_wall(table, context.reader, picks[first : first + PAGE]))
    pages = max(1, -(-len(picks) // PAGE))
    return {"strips": [strip], "pages": pages, "patterns": patterns, "listed": len(picks)}


def _divided(context: ChunkContext, condition: Condition, by: str, page: int) -> dict[str, Any]:
    """Return a strip of chunks for each of the most frequent values of a field."""
    table = context.explorer.table
    known = {field.name: field for field in _dividing_fields(table)}
    if by not in known:
        raise ConfigError(f"by: {by!r}: must be unusual or one of {', '.join(known)}")
    strips = list[Strip]()
    for count in table.values(by, condition & HAS_ROWS, STRIPS):
        own = condition & term(known[by], count.value)
        recordings, chunks = count_chunks(table, own)
        picks = sample_chunks(table, own, (page - 1) * STRIP, STRIP)
        wall = hang_wall(table, context.reader, picks)
        strips.append(Strip(wall, count.value, recordings, chunks))
    pages = max([-(-strip.chunks // STRIP) for strip in strips], default=1)
    return {"strips": strips, "pages": pages}


def _dividing_fields(table: RecordingTable) -> list[Field]:
    added = [n for n, f in table.fields.items() if n.startswith("added.") and f.kind != "number"]
    names = (*(f"label.{label}" for label in table.labels), *added, "split", "codec", "verdict")
    return [table.fields[name] for name in names if name in table.fields]
