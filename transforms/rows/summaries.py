"""The summary of a finished shard: a small record, for use without opening the shard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from melmill.transforms.core.errors import TRANSIENT_CAUSES
from melmill.transforms.core.records import Failure, MeasuredPart
from melmill.transforms.rows.distribution import Distribution
from melmill.transforms.rows.moments import Moments

_NOTHING = Distribution()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the dataset.

    Attributes
    ----------
    name
        Name relative to the dataset.
    size_bytes, sha256
        Size and SHA-256 of the content.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RecordingRows:
    """The rows of a recording in a shard.

    Attributes
    ----------
    recording_id, rows, peak_dbfs
        Id of the recording, number of its rows in the shard, and their peak.
    digest
        Digest of these rows; see :mod:`~melmill.transforms.rows.rows_digest`. ``""`` if an
        older melmill wrote the shard.
    """

    recording_id: str
    rows: int
    peak_dbfs: float
    digest: str = ""


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """The :class:`~melmill.transforms.rows.moments.Moments` of a feature, as plain values."""

    name: str
    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, name: str, moments: Moments) -> FeatureMoments:
        """Return the moments of a feature as plain values."""
        mean, m2 = tuple(moments.mean.tolist()), tuple(moments.m2.tolist())
        return cls(name, moments.count, mean, m2, moments.low, moments.high)

    @property
    def moments(self) -> Moments:
        """Moments, which can be merged with those of other shards."""
        return Moments(self.count, np.array(self.mean), np.array(self.m2), self.low, self.high)


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """The summary of a finished shard.

    Attributes
    ----------
    name, split
        Name and split, which are part of the files' names; the name is a digest of the plan
        and of the files' content.
    plan
        Digest of the plan from which the shard was made.
    rows
        Number of rows in each file.
    parquet, tfrecord
        Files of the shard; ``None`` for a format that was not written.
    recordings
        Rows of each recording in the shard.
    failures
        Failures of the planned recordings that have no rows in the shard.
    null_labels
        Label columns in which at least one row has no value.
    count, mean, m2, low, high
        :class:`~melmill.transforms.rows.moments.Moments` of the rows' first feature.
    distribution
        Distribution of the rows.
    others
        Moments of the rows' other features.
    meters, measured
        Meters that were used while the rows were made, and the parts of recordings that they read.
        They are needed until the index is written.
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
    others: tuple[FeatureMoments, ...] = ()
    meters: tuple[str, ...] = ()
    measured: tuple[MeasuredPart, ...] = ()

    @property
    def moments(self) -> Moments:
        """Moments of the first feature, which can be merged with those of other shards."""
        return Moments(self.count, np.array(self.mean), np.array(self.m2), self.low, self.high)

    @property
    def of_rows(self) -> ShardSummary:
        """The summary without what rows of recordings and failures hold in an index."""
        return replace(self, failures=(), meters=(), measured=())

    @property
    def is_final(self) -> bool:
        """Whether a retry cannot give more rows: no failure has a transient cause."""
        return not any(failure.cause in TRANSIENT_CAUSES for failure in self.failures)

    def to_json(self) -> bytes:
        """Return the summary as JSON; equal summaries give equal bytes."""
        # A summary without these is what it was before there were several features, or measures.
        empty = {name for name in ("others", "meters", "measured") if not getattr(self, name)}
        text: bytes = _adapter().dump_json(self, exclude=empty or None)
        return text

    @classmethod
    def from_json(cls, text: bytes) -> ShardSummary:
        """Return the summary from :meth:`to_json`'s output; raise ``ValueError`` for other text."""
        summary: ShardSummary = _adapter().validate_json(text)
        return summary


@cache
def _adapter() -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config

    return TypeAdapter(with_config(ConfigDict(ser_json_inf_nan="constants"))(ShardSummary))
