"""States: what meters have read, as JSON, and its merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from melmill.transforms.core.records import MeasuredPart
from melmill.transforms.measures.meters import Meter, Reading
from melmill.transforms.measures.registry import METERS, by_group, readings_of


def to_json(meters: Mapping[str, Meter]) -> str:
    """Return the states of meters, by the meter's name, as JSON."""
    states: Mapping[str, Any] = meters
    return json.dumps({name: asdict(meter) for name, meter in states.items()}, allow_nan=False)


def from_json(text: str) -> dict[str, Meter]:
    """Return the meters whose states :func:`to_json` returned."""
    return {name: _adapter(name).validate_python(s) for name, s in json.loads(text).items()}


def readings_json(readings: Mapping[str, Reading]) -> str:
    """Return readings, by group and name, as JSON."""
    return json.dumps(by_group(readings), allow_nan=False)


def read_all(parts: Iterable[MeasuredPart]) -> Any:
    """Return the readings of a recording, by group and name, from all its parts in any order.

    The result is ``None`` if a part is missing: then the recording is not measured.

    Raises
    ------
    RuntimeError
        Two parts overlap.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    borders = [0, *(part.stop for part in ordered)]
    for part, border in zip(ordered, borders, strict=False):
        if part.start < border:
            raise RuntimeError(f"{part.recording_id} was measured twice at frame {part.start}")
        if part.start > border:
            return None
    if not ordered or borders[-1] < ordered[0].total:
        return None
    if len(ordered) == 1:
        return json.loads(ordered[0].text)
    first, *later = (from_json(part.text) for part in ordered)
    for meters in later:
        for name, meter in first.items():
            meter.merge(meters[name])
    return by_group(readings_of(first))


@cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(METERS[name])
