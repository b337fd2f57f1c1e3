"""What is computed from a recording, as one value with one stable digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.mel import MelSpec, frame_count
from melmill.transforms.features.resample import Quality

#: Raised whenever the same configuration comes to give other numbers.
EXTRACTOR_VERSION = 2


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Everything that a row's values depend on, apart from the recording.

    Attributes
    ----------
    sample_rate_hz
        The target rate: recordings are converted to it.
    channels
        Which of a recording's channels become rows.
    resampler
        soxr's recipe, by librosa's name.
    chunk, mel
        How a recording is cut, and what is computed of each chunk.
    resolution
        Step that values are rounded to, in the log's own unit; ``None`` keeps float32.
    """

    sample_rate_hz: int = 22_050
    channels: ChannelPolicy = "mono"
    resampler: Quality = "soxr_hq"
    chunk: ChunkSpec = field(default_factory=lambda: ChunkSpec(66_150, 66_150))
    mel: MelSpec = field(default_factory=MelSpec)
    resolution: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_mels, frames)`` of every row."""
        return self.mel.n_mels, frame_count(self.mel, self.chunk.length)

    def canonical(self) -> str:
        """Canonical JSON, which the digest is taken of and which the shards carry."""
        body = {"extractor_version": EXTRACTOR_VERSION, **asdict(self)}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """128 bits of BLAKE2b over the canonical JSON, in hexadecimal."""
        return hashlib.blake2b(self.canonical().encode(), digest_size=16).hexdigest()
