"""Manifests in the layouts of other tools, written as those tools write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from melmill.transforms.catalogue.parts import catalogue_parts, list_part, open_catalogue
from melmill.transforms.core.records import Recording

RATE = 4000


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSON lines, compressed if the name ends in ``.gz``."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def recording(name: str, source: str, seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Return a recording as lhotse's ``Recording.to_dict`` gives it."""
    return {
        "id": name,
        "sources": [{"type": "file", "channels": [0], "source": source}],
        "sampling_rate": RATE,
        "num_samples": round(seconds * RATE),
        "duration": seconds,
        "channel_ids": [0],
        **changes,
    }


def supervision(name: str, of: str, start: float, duration: float, **more: Any) -> dict[str, Any]:
    """Return a segment as lhotse's ``SupervisionSegment.to_dict`` gives it."""
    own = {"id": name, "recording_id": of, "start": start, "duration": duration, "channel": 0}
    return {**own, **more}


def cut(
    name: str, audio: dict[str, Any], start: float, duration: float, **more: Any
) -> dict[str, Any]:
    """Return a cut as lhotse's ``MonoCut.to_dict`` gives it."""
    own = {"id": name, "start": start, "duration": duration, "channel": 0, "recording": audio}
    return {**own, "supervisions": [], "type": "MonoCut", **more}


def listed(catalogue: Path | str, **options: Any) -> list[Recording]:
    """Return the recordings of a catalogue in its order."""
    opened = open_catalogue(str(catalogue), **options)
    return [r for part in catalogue_parts(opened) for r in list_part(opened, part)]


def segments(recordings: Iterable[Recording]) -> list[tuple[str, float | None, float | None]]:
    """Return the relative URI, the start and the end of each recording."""
    return [(r.relative_uri, r.start_seconds, r.end_seconds) for r in recordings]


def faults(recordings: Iterable[Recording]) -> list[str]:
    """Return the messages of the recordings with a fault."""
    return [r.fault[1] for r in recordings if r.fault is not None]
