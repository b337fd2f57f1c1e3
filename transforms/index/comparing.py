"""Compares a catalogue with a snapshot's index: part by part, or a small catalogue at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from melmill.transforms.catalogue.parts import catalogue_parts
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Recording
from melmill.transforms.index.tables import read_part
from melmill.transforms.plan.change_records import Candidate, Decision, Difference, Touched
from melmill.transforms.plan.finding_changes import (
    COLUMNS,
    FAILURE_COLUMNS,
    by_identity,
    decide,
    diff_part,
)
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import BLOCK, list_blocks

#: Maximum number of recordings in a small catalogue, and in a table of remote recordings, each of
#: which needs a request.
MOST_RECORDINGS, _MOST_REQUESTS = 50_000, 1_000
#: Maximum number of recordings that one process computes sooner than it starts workers, their
#: total size in bytes, and maximum number of shards that it rewrites.
_FEW_RECORDINGS, FEW_BYTES, _FEW_SHARDS = 16, 16_000_000, 4
#: Maximum number of recordings whose headers one process reads sooner than it starts workers.
_FEW_HEADERS = 256


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a small catalogue with the snapshot that a job starts from.

    Attributes
    ----------
    decision
        Decision how the run continues.
    listed
        Number of listed recordings.
    passed_over
        Numbers of files that are not listed, by extension.
    recordings, size_bytes
        Number and total size of the recordings that must be computed.
    shards
        Number of shards that must be rewritten; all shards of a new layout count as many.
    """

    decision: Decision
    listed: int
    passed_over: Counter[str]
    recordings: int
    size_bytes: int
    shards: int

    @property
    def is_brief(self) -> bool:
        """Whether one process computes the changes sooner than it starts workers."""
        return (
            self.recordings <= _FEW_RECORDINGS
            and self.size_bytes <= FEW_BYTES
            and self.shards <= _FEW_SHARDS
        )

    @property
    def has_few_headers(self) -> bool:
        """Whether one process plans the changes sooner than it starts workers."""
        return self.recordings <= _FEW_HEADERS


def compare_small(job: ExtractJob, most: int = MOST_RECORDINGS) -> Comparison | None:
    """Compare a job's catalogue with its snapshot in this process; ``None`` if they are large.

    Raises
    ------
    CatalogueError
        If a recording is listed twice.
    DatasetError
        If the run would remove too many recordings.
    """
    if job.base.parts > 1:
        return None
    passed_over: Counter[str] = Counter()
    recordings = _list_few(job, most if not job.base.is_nothing else _FEW_HEADERS, passed_over)
    if recordings is None:
        return None
    listed = len(recordings)
    difference = Difference()
    known, failures = read_known(job, 0, 1)
    candidates: list[Recording] = []
    shards: set[str] = set()
    for change in diff_part(by_identity(recordings), known, failures, job, difference):
        if isinstance(change, Candidate):
            candidates.append(change.recording)
        elif isinstance(change, Touched):
            shards.add(change.shard)
    size_bytes = sum(max(0, recording.size_bytes) for recording in candidates)
    rewritten = len(shards) if job.base.same_files else max(len(shards), _FEW_SHARDS + 1)
    total = Difference()
    total.merge(difference)  # as the pipeline does, which sorts the examples
    decision = decide(total, 1, job)
    return Comparison(decision, listed, passed_over, len(candidates), size_bytes, rewritten)


def _list_few(job: ExtractJob, most: int, passed_over: Counter[str]) -> list[Recording] | None:
    """Return all recordings of the catalogue; ``None`` if there are more than `most`."""
    left_out, recordings = job.left_out(), list[Recording]()
    for part in catalogue_parts(job.catalogue):
        for block in list_blocks(job, part, left_out, passed_over):
            recordings += block
            if len(recordings) > (_MOST_REQUESTS if _needs_requests(job, block) else most):
                return None
    return recordings


def _needs_requests(job: ExtractJob, block: list[Recording]) -> bool:
    """Return whether the fingerprints of a block were looked up in a remote store."""
    return job.catalogue.kind == "table" and any(
        job.source(recording).local_path is None for recording in block if not recording.fault
    )


def read_known(
    job: ExtractJob, part: int, parts: int
) -> tuple[Iterator[dict[str, Any]], dict[str, tuple[str, int]]]:
    """Return the snapshot's recordings and failures of a part; its index may have fewer parts."""
    base = job.base
    if base.is_nothing:
        return iter(()), {}
    rows = read_part(job.store, base.index, "recordings", part % base.parts, COLUMNS)
    failed = read_part(job.store, base.index, "failures", part % base.parts, FAILURE_COLUMNS)
    failures = {
        row["recording_id"]: (row["cause"], row["attempts"] or 1) for row in failed.to_pylist()
    }
    known = (
        row
        for batch in rows.to_batches(BLOCK)
        for row in batch.to_pylist(maps_as_pydicts="strict")
        if parts == base.parts or bucket(row["recording_id"], parts) == part
    )
    return known, failures
