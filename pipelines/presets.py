"""The recipes that come with melmill: presets of the front ends of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melmill.pipelines.config import load_config, read_yaml, shipped_recipe, shipped_recipes


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe that comes with melmill.

    Attributes
    ----------
    name
        Name, for ``--recipe``.
    purpose
        Models that take the features, and what the features are.
    sample_rate_hz
        Sample rate of the audio.
    shape
        Shape of the feature of a chunk: ``(bands, frames)`` or ``(samples,)``.
    dtype
        Type of the feature's values.
    chunk_seconds
        Duration of a chunk.
    bytes_per_hour
        Size of the feature of an hour of audio, before compression.
    """

    name: str
    purpose: str
    sample_rate_hz: int
    shape: tuple[int, ...]
    dtype: str
    chunk_seconds: float
    bytes_per_hour: int


def list_presets() -> list[Preset]:
    """Return all presets, sorted by name.

    Examples
    --------
    >>> [preset.shape for preset in list_presets() if preset.name == "whisper-80"]
    [(80, 3000)]
    """
    return [describe_preset(name) for name in sorted(shipped_recipes())]


def preset_text(name: str) -> str:
    """Return the YAML text of a preset; raise ``ConfigError`` if there is no such preset."""
    return Path(shipped_recipe(name)).read_text(encoding="utf-8")


def preset_json(preset: Preset) -> dict[str, Any]:
    """Return a preset and its recipe as plain values."""
    values = {field: getattr(preset, field) for field in Preset.__slots__}
    return values | {"recipe": read_yaml(shipped_recipe(preset.name))}


def describe_preset(name: str) -> Preset:
    """Return a preset; raise ``ConfigError`` if there is no such preset."""
    spec = load_config(shipped_recipe(name)).feature_spec()
    (column,) = spec.columns
    rate = spec.sample_rate_hz
    return Preset(
        name=name,
        purpose=_first_line(preset_text(name)),
        sample_rate_hz=rate,
        shape=column.shape,
        dtype=column.dtype,
        chunk_seconds=spec.chunk.length / rate,
        bytes_per_hour=round(column.row_bytes * 3600 * rate / spec.chunk.hop),
    )


def _first_line(text: str) -> str:
    """Return the first line of a recipe's comment."""
    return text.splitlines()[0].removeprefix("#").strip().rstrip(".")
