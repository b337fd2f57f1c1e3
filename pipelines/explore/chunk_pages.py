"""Chunks: those of a recording, and one of them drawn exactly, beside its sound."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melmill.pipelines.explore import wall_pages
from melmill.pipelines.explore.chunk_context import PAGE, ChunkContext
from melmill.pipelines.explore.chunk_walls import Card
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.list_pages import page_number
from melmill.pipelines.explore.stored_features import StoredFeatures, plain
from melmill.pipelines.explore.unusual_chunks import UnusualChunks
from melmill.pipelines.sound.colours import COLOUR_MAP
from melmill.pipelines.sound.wav import PART_SECONDS
from melmill.transforms.core.feature_columns import FeatureColumn

_SECONDS_OF_A_DAY = 86_400


def routes(explorer: Explorer) -> list[Route]:
    """Return the addresses of chunks."""
    unusual = UnusualChunks(explorer.store)
    explorer.resources.callback(unusual.close)
    context = ChunkContext(explorer, explorer.chunks, unusual)

    def recording(request: Request) -> Response:
        return _recording(context, request)

    def one(request: Request) -> Response:
        return _one(context, request)

    def picture(request: Request) -> Response:
        features, column, values = _feature(context, request)
        range_of = features.range_of(column.name, request.query_params.get("range"))
        return _kept(context, request, features.draw(column.name, values, range_of), "image/png")

    def values(request: Request) -> Response:
        _, _, array = _feature(context, request)
        little_endian = array.astype(array.dtype.newbyteorder("<"))
        return _kept(context, request, little_endian.tobytes(), "application/octet-stream")

    chunk = "/recordings/{recording_id}/chunks/{chunk_index:int}"
    return [
        *wall_pages.routes(context),
        Route("/recordings/{recording_id}/chunks", recording),
        Route(chunk, one),
        Route(f"{chunk}/picture.png", picture),
        Route(f"{chunk}/values", values),
    ]


def _feature(context: ChunkContext, request: Request) -> tuple[StoredFeatures, FeatureColumn, Any]:
    """Return the features, the one of an address, and its values in the chunk of the address."""
    features = context.features(context.explorer.table)
    column = features.array(request.query_params.get("feature"))
    _, chunks, number = context.chunk(request)
    return features, column, context.reader.feature(chunks[number], column.name)


def _kept(context: ChunkContext, request: Request, content: bytes, kind: str) -> Response:
    """Return an answer that the browser keeps if its address names the version."""
    is_version = request.query_params.get("version") == str(context.explorer.table.version)
    kept = {"Cache-Control": f"private, max-age={_SECONDS_OF_A_DAY}"} if is_version else {}
    return Response(content, media_type=kind, headers=kept)


def _recording(context: ChunkContext, request: Request) -> Response:
    row = context.row(request)
    chunks = context.reader.chunks(row)
    if not chunks:
        return context.explorer.page(request, "no_chunks.html", recording=row, shown=Filter())
    page = page_number(request.query_params.get("page", "1"))
    shown = chunks[(page - 1) * PAGE : page * PAGE]
    return context.explorer.page(
        request,
        "recording_chunks.html",
        recording=row,
        chunks=len(chunks),
        page=page,
        pages=-(-len(chunks) // PAGE),
        cards=[Card(row, chunk) for chunk in shown],
        **context.look(request),
    )


def _one(context: ChunkContext, request: Request) -> Response:
    row, chunks, number = context.chunk(request)
    chunk, features = chunks[number], context.features(context.explorer.table)
    plots = [
        {**asdict(features.plot(column, chunk)), "range": _range(features, name)}
        for name, column in features.arrays.items()
    ]
    read = context.reader.features(chunk, list(features.numbers))
    numbers = [(name, features.measure(name), plain(value)) for name, value in read.items()]
    return context.explorer.page(
        request,
        "chunk.html",
        recording=row,
        chunk=chunk,
        features=features,
        number=number,
        chunks=len(chunks),
        before=chunks[number - 1] if number else None,
        after=chunks[number + 1] if number + 1 < len(chunks) else None,
        length=features.spec.chunk.length,
        plots=plots,
        numbers=numbers,
        added=context.explorer.table.added.of_chunk(row["recording_id"], chunk),
        colour_map=COLOUR_MAP,
        part_seconds=PART_SECONDS,
    )


def _range(features: StoredFeatures, name: str) -> dict[str, Any] | None:
    known = features.ranges.get(name)
    is_dataset = features.range_of(name, None) == "dataset"
    return None if known is None else {**asdict(known), "isDefault": is_dataset}
