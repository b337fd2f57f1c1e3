"""The settings of the features, as one value with a stable digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.mel_spec import MelSpec, mel_shape
from melmill.transforms.features.resample import Quality

#: Increase this number when the same configuration starts to give different features.
EXTRACTOR_VERSION = 2


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """All settings that a row's values depend on.

    Attributes
    ----------
    sample_rate_hz
        Target rate: recordings are converted to it.
    channels
        Policy that decides which channels become rows.
    resampler
        soxr's quality setting, by librosa's name.
    chunk, mel
        Settings for cutting a recording, and for computing the features of a chunk.
    resolution
        Step to which values are rounded, in the unit of the log; ``None`` keeps float32.
    """

    sample_rate_hz: int = 22_050
    channels: ChannelPolicy = "mono"
    resampler: Quality = "soxr_hq"
    chunk: ChunkSpec = field(default_factory=lambda: ChunkSpec(66_150, 66_150))
    mel: MelSpec = field(default_factory=MelSpec)
    resolution: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(bands, frames)`` of each row."""
        return mel_shape(self.mel, self.chunk.length)

    def canonical(self) -> str:
        """Return the canonical JSON, which the digest is computed from and the shards contain."""
        body = {"extractor_version": EXTRACTOR_VERSION, **_settings(self)}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """Return 128 bits of BLAKE2b over the canonical JSON, in hexadecimal."""
        return hashlib.blake2b(self.canonical().encode(), digest_size=16).hexdigest()


def _settings(spec: Any) -> Any:
    """Return the settings as plain values, without those that were added and have their default."""
    if not is_dataclass(spec):
        return spec
    values = ((known, getattr(spec, known.name)) for known in fields(spec))
    return {
        known.name: _settings(value)
        for known, value in values
        if not (known.metadata.get("added") and value == known.default)
    }
