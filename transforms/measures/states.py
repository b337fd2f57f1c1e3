"""States: what meters have read, as JSON, and its merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from melmill.transforms.measures.meters import Meter, Reading
from melmill.transforms.measures.registry import METERS, readings_of


def to_json(meters: Mapping[str, Meter]) -> str:
    """Return the states of meters, by the meter's name, as JSON."""
    states: Mapping[str, Any] = meters
    return json.dumps({name: asdict(meter) for name, meter in states.items()})


def from_json(text: str) -> dict[str, Meter]:
    """Return the meters whose states :func:`to_json` returned."""
    return {name: _adapter(name).validate_python(s) for name, s in json.loads(text).items()}


def read_all(parts: Iterable[str]) -> dict[str, Reading]:
    """Return the readings of a recording, from the states of its parts in order."""
    first, *later = (from_json(text) for text in parts)
    for meters in later:
        for name, meter in first.items():
            meter.merge(meters[name])
    return readings_of(first)


@cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(METERS[name])
