"""One recording: its page, its pictures as they are drawn, and its sound."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from melmill.pipelines.check_dataset import readings_of_row
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.kept import Kept
from melmill.pipelines.explore.recording_facts import (
    Duplicate,
    find_defects,
    find_duplicates_of,
    readings_by_group,
)
from melmill.pipelines.explore.recording_sources import SoundSource, SoundSources
from melmill.pipelines.explore.segments import find_start, is_segment
from melmill.pipelines.explore.streams import Pieces, answer_bytes
from melmill.pipelines.sound.colours import COLOUR_MAP
from melmill.pipelines.sound.decoder_pool import DecoderPool
from melmill.pipelines.sound.pictures import PicturePart, PictureSpec, draw_parts_of
from melmill.pipelines.sound.spectrogram import Bands
from melmill.pipelines.sound.wav import PART_SECONDS, WavFile, read_bytes_of
from melmill.transforms.core.errors import (
    Cause,
    ConfigError,
    RecordingError,
    UnavailableError,
    UserError,
)
from melmill.transforms.duplicates.deciding import read_groups
from melmill.transforms.index.results import GroupTables

_COLUMNS, _MOST_COLUMNS = 1_000, 4_000
_BANDS, _MOST_BANDS = 192, 512
_SCALES: dict[str, Literal["log", "linear"]] = {"log": "log", "linear": "linear"}
#: Size of the tables about duplicates that are kept in memory.
_GROUP_BYTES = 1 << 28


def routes(explorer: Explorer) -> list[Route]:
    """Return the addresses of recordings."""
    decoders = DecoderPool()
    explorer.resources.callback(decoders.close)
    sources = SoundSources(decoders, explorer.source_options)
    groups: Kept[GroupTables] = Kept(_GROUP_BYTES, _size_of)

    def duplicates_of(recording_id: str) -> list[Duplicate]:
        index = explorer.opened.snapshot.index
        tables = groups.get(index, lambda: read_groups(explorer.store, index))
        return find_duplicates_of(recording_id, tables)

    def recording(request: Request) -> Response:
        row = explorer.row_or_404(request.path_params["recording_id"])
        start = find_start(row, explorer.chunks)
        duplicates = [
            _in_files(explorer, other, start or 0.0) for other in duplicates_of(row["recording_id"])
        ]
        return explorer.page(request, "recording.html", **_values(explorer, row, start, duplicates))

    @_told
    def picture(request: Request) -> Response:
        row = explorer.row_or_404(request.path_params["recording_id"])
        found = sources.find(row)
        spec = _picture_spec(request.query_params, found)
        key = f"{row['uri']} picture"
        parts = decoders.stream(key, draw_parts_of, found.source, found.audio, spec)
        return Pieces(_lines(found, spec, parts, sources), media_type="application/x-ndjson")

    @_told
    def sound(request: Request) -> Response:
        row = explorer.row_or_404(request.path_params["recording_id"])
        found = sources.find(row)
        query = request.query_params
        file = WavFile(found.audio, _integer(query, "part") or 0, _integer(query, "channel"))
        key, tag = f"{row['uri']} sound", file.tag(found.source.fingerprint)
        return answer_bytes(
            request,
            file.size_bytes,
            tag,
            lambda first, stop: decoders.stream(
                key, read_bytes_of, found.source, file, first, stop
            ),
        )

    return [
        Route("/recordings/{recording_id}", recording),
        Route("/recordings/{recording_id}/picture", picture),
        Route("/recordings/{recording_id}/sound.wav", sound),
    ]


def _in_files(explorer: Explorer, other: Duplicate, start: float) -> Duplicate:
    """Return a duplicate with the shift between the files, of which the two may be segments."""
    row = explorer.table.recording(other.recording_id)
    start_of_other = (find_start(row, explorer.chunks) if row else None) or 0.0
    return replace(other, shift_seconds=other.shift_seconds + start_of_other - start)


def _values(
    explorer: Explorer, row: Mapping[str, Any], start: float | None, duplicates: list[Duplicate]
) -> dict[str, Any]:
    """Return the values of a recording's page; places are seconds of its file."""
    readings = readings_of_row(row["measures"]) if row["measures"] else {}
    defects = find_defects(readings, explorer.profile, start) if readings else []
    snapshot = explorer.opened.snapshot
    command = ["melmill", "refresh", snapshot.catalogue, explorer.store.root]
    return {
        "row": row,
        "title": row["uri"].rstrip("/").rpartition("/")[2],
        "failure": row["failure"],
        "is_segment": is_segment(row),
        "start": start,
        "defects": defects,
        "readings": readings_by_group(readings),
        "added": explorer.table.added.of_recording(row["recording_id"]),
        "tags": sorted((row["tags"] or {}).items()),
        "duplicates": duplicates,
        "original": row["duplicate_of"],
        "profile": explorer.profile,
        "measure_command": shlex.join([*command, "--set", "quality=full"]),
        "data": {
            "id": row["recording_id"],
            "part_seconds": PART_SECONDS,
            "failure": row["failure"]["message"] if row["failure"] else None,
            "colours": COLOUR_MAP,
            "places": [
                {
                    "second": place.second,
                    "channel": place.channel,
                    "text": place.text,
                    "broken": place.is_broken,
                }
                for kind in defects
                for place in kind.places
            ],
            "duplicates": [
                {"id": other.recording_id, "uri": other.uri, "shift": other.shift_seconds}
                for other in duplicates
            ],
        },
    }


def _told(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return an endpoint whose errors are JSON for the page, which shows the message."""

    @wraps(endpoint)
    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except RecordingError as error:
            status = 404 if error.cause is Cause.NOT_FOUND else 502
            return JSONResponse({"error": error.message}, status)
        except UnavailableError as error:
            return JSONResponse({"error": str(error)}, 503)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


def _size_of(tables: GroupTables) -> int:
    return int(sum(table.nbytes for table in tables.by_name().values()))


def _integer(query: Mapping[str, str], name: str, most: int = 2**53) -> int | None:
    """Return a whole number of an address; ``None`` if it is not there."""
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text) <= most):
        raise ConfigError(f"{name}: {text!r}: must be a whole number from 0 to {most}")
    return int(text)


def _picture_spec(query: Mapping[str, str], found: SoundSource) -> PictureSpec:
    audio = found.audio
    start = _integer(query, "start", audio.frames - 1) or 0
    stop = _integer(query, "stop", audio.frames) or audio.frames
    if stop <= start:
        raise ConfigError(f"stop: {stop}: must be after start, which is {start}")
    columns = _integer(query, "columns", _MOST_COLUMNS) or _COLUMNS
    channel = _integer(query, "channel", audio.channels - 1)
    scale = _SCALES.get(query.get("scale", "log"))
    if scale is None:
        raise ConfigError(f"scale: {query['scale']!r}: must be log or linear")
    bands = Bands(_integer(query, "bands", _MOST_BANDS) or _BANDS, scale)
    is_whole = query.get("only") != "waveform"
    return PictureSpec(
        start, stop, min(columns, stop - start), bands if is_whole else None, channel, is_whole
    )


def _lines(
    found: SoundSource, spec: PictureSpec, parts: Iterator[PicturePart], sources: SoundSources
) -> Generator[str, None, None]:
    """Yield a picture as lines of JSON: its description, its parts, and how it ended."""
    rate = found.audio.sample_rate_hz
    description = {
        "rate": rate,
        "frames": found.audio.frames,
        "channels": found.audio.channels,
        "start": spec.start,
        "stop": spec.stop,
        "columns": spec.columns,
        "hz": spec.bands.centres_hz(rate).tolist() if spec.bands else [],
        "notices": found.notices,
    }
    yield json.dumps(description) + "\n"
    try:
        for part in parts:
            yield json.dumps(_part(part)) + "\n"
        yield json.dumps({"done": True}) + "\n"
    except RecordingError as error:
        sources.note_damage(found, error)
        yield json.dumps({"error": error.message, "cause": error.cause}) + "\n"


def _part(part: PicturePart) -> dict[str, Any]:
    return {
        "first": part.first,
        "stop": part.stop,
        "minima": _base64(part.minima),
        "maxima": _base64(part.maxima),
        "levels": _base64(half_decibels(part.levels_dbfs)),
        "momentary": _base64(part.momentary_lufs),
        "short_term": _base64(part.short_term_lufs),
        "non_finite": part.non_finite,
    }


def half_decibels(levels_dbfs: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return levels in steps of half a decibel below 0 dBFS: 0 is 0 dBFS or more, 255 is silence.

    >>> half_decibels(np.array([1, 0, -20.2, -300, -np.inf], np.float32)).tolist()
    [0, 0, 40, 254, 255]
    """
    steps = np.clip(np.rint(-2 * levels_dbfs), 0, 254)
    return np.where(np.isneginf(levels_dbfs), 255, steps).astype(np.uint8)


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
