"""The columns of features as a shard's metadata describes them, and as older shards did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from melmill.transforms.core.feature_columns import FeatureColumn

_N_MELS, _N_FRAMES = b"melmill.n_mels", b"melmill.n_frames"
_VALID = b"melmill.valid_column"
_FEATURES = b"melmill.feature_columns"


def is_only_mel(features: Sequence[FeatureColumn]) -> bool:
    """Return whether the only feature is a spectrogram with the name ``mel``."""
    shapes = [(column.name, column.dtype, len(column.shape)) for column in features]
    return shapes == [("mel", "float32", 2)]


def to_metadata(features: Sequence[FeatureColumn]) -> dict[bytes, bytes]:
    """Return the metadata of a shard with these features."""
    if not is_only_mel(features):
        return {_FEATURES: json.dumps([_described(column) for column in features]).encode()}
    (mel,) = features
    shape = {_N_MELS: str(mel.shape[0]).encode(), _N_FRAMES: str(mel.shape[1]).encode()}
    return shape | ({_VALID: mel.valid.encode()} if mel.valid else {})


def from_metadata(metadata: Mapping[bytes, bytes]) -> tuple[FeatureColumn, ...]:
    """Return the columns of features; raise ``ValueError`` if the metadata lacks their shapes.

    >>> columns = (FeatureColumn("mel", (128, 130), valid="valid_frames"),)
    >>> from_metadata(to_metadata(columns)) == columns
    True
    """
    if _FEATURES in metadata:
        columns = json.loads(metadata[_FEATURES])
        return tuple(FeatureColumn(**{**c, "shape": tuple(c["shape"])}) for c in columns)
    if _N_MELS not in metadata or _N_FRAMES not in metadata:
        raise ValueError("not a shard of melmill: its metadata lacks the shapes of the features")
    shape = int(metadata[_N_MELS]), int(metadata[_N_FRAMES])
    return (FeatureColumn("mel", shape, valid=metadata.get(_VALID, b"").decode()),)


def _described(column: FeatureColumn) -> dict[str, Any]:
    described = asdict(column)
    for later in ("flac_rate_hz", "valid"):
        if not described[later]:
            del described[later]  # as in shards from before there were these
    return described
