"""What is known of a finished shard without opening it: the small record that travels on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from melmill.transforms.core.errors import TRANSIENT_CAUSES
from melmill.transforms.core.records import Failure
from melmill.transforms.rows.distribution import Distribution
from melmill.transforms.rows.moments import Moments

_NOTHING = Distribution()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the dataset.

    Attributes
    ----------
    name
        Relative to the dataset.
    size_bytes, sha256
        Of its content.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RecordingRows:
    """What a shard holds of one recording.

    Attributes
    ----------
    recording_id, rows, peak_dbfs
        Which recording, how many of its rows, and the peak of these.
    digest
        Of these rows; see :mod:`~melmill.transforms.rows.rows_digest`. ``""`` where an older
        melmill wrote them.
    """

    recording_id: str
    rows: int
    peak_dbfs: float
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """A finished shard.

    Attributes
    ----------
    name, split
        Part of the files' names; the name is a digest of the plan and of the files' content.
    plan
        Digest of what the shard was made of.
    rows
        Rows in each of its files.
    parquet, tfrecord
        Its files; ``None`` where it has none.
    recordings
        What it holds of which recording.
    failures
        The recordings of its plan that it holds nothing of.
    null_labels
        Label columns in which some row has no value.
    count, mean, m2, low, high
        Its :class:`~melmill.transforms.rows.moments.Moments`.
    distribution
        Of its rows.
    """

    name: str
    plan: str
    split: str
    rows: int
    parquet: FileEntry | None
    tfrecord: FileEntry | None
    recordings: tuple[RecordingRows, ...]
    failures: tuple[Failure, ...]
    null_labels: tuple[str, ...]
    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    low: float
    high: float
    distribution: Distribution = _NOTHING

    @property
    def moments(self) -> Moments:
        """Its moments, to be merged with others'."""
        return Moments(self.count, np.array(self.mean), np.array(self.m2), self.low, self.high)

    @property
    def is_final(self) -> bool:
        """Whether making it again could not give more rows."""
        return not any(failure.cause in TRANSIENT_CAUSES for failure in self.failures)

    def to_json(self) -> bytes:
        """Serialise, the same way every time."""
        text: bytes = _adapter().dump_json(self)
        return text

    @classmethod
    def from_json(cls, text: bytes) -> ShardSummary:
        """Read what :meth:`to_json` wrote; ``ValueError`` for anything else."""
        summary: ShardSummary = _adapter().validate_json(text)
        return summary


@cache
def _adapter() -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config

    return TypeAdapter(with_config(ConfigDict(ser_json_inf_nan="constants"))(ShardSummary))
