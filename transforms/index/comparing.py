"""Compares a catalogue with a snapshot's index: part by part, or a small catalogue at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from melmill.transforms.catalogue.listing import OutOfTimeError
from melmill.transforms.catalogue.parts import catalogue_parts
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Recording
from melmill.transforms.index.tables import read_index, read_part
from melmill.transforms.plan.change_records import (
    Candidate,
    Decision,
    Difference,
    Offer,
    Touched,
)
from melmill.transforms.plan.finding_changes import (
    decide,
    diff_part,
)
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.known_rows import FAILURE_COLUMNS, columns_of
from melmill.transforms.plan.listing import (
    BLOCK,
    by_identity,
    list_blocks,
    look_up_versions,
    needs_version,
)
from melmill.transforms.plan.packing import row_bytes
from melmill.transforms.store.folders import Store

#: Maximum number of recordings in a small catalogue, and of those whose versions need a request.
MOST_RECORDINGS, _MOST_REQUESTS = 50_000, 1_000
#: Maximum number of seconds to list a small catalogue.
_MOST_SECONDS = 2.0
#: Maximum number of recordings that one process computes sooner than it starts workers, and their
#: total size in bytes.
_FEW_RECORDINGS, FEW_BYTES = 16, 16_000_000
#: Maximum size of the features in the shards that one process rewrites, in bytes.
_FEW_REWRITTEN_BYTES = 64_000_000
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
    recordings
        Number of recordings that must be computed.
    is_brief
        Whether one process makes the changes sooner than it starts workers.
    has_few_headers
        Whether one process plans the changes sooner than it starts workers.
    """

    decision: Decision
    listed: int
    passed_over: Counter[str]
    recordings: int
    is_brief: bool
    has_few_headers: bool


def compare_small(job: ExtractJob, most: int = MOST_RECORDINGS) -> Comparison | None:
    """Compare a job's catalogue with its snapshot in this process; ``None`` if they are large.

    This takes some seconds at most.

    Raises
    ------
    CatalogueError
        If a recording is listed twice.
    DatasetError
        If the run would remove too many recordings.
    """
    passed_over: Counter[str] = Counter()
    # A chain of file systems may answer from a cache of an earlier run.
    if job.base.parts > 1 or "::" in job.catalogue.uri:
        return None
    recordings = _list_few(job, most if not job.base.is_nothing else _FEW_HEADERS, passed_over)
    if recordings is None:
        return None
    known, failures = read_known(job, 0, 1)
    difference, total = Difference(), Difference()
    changes = list(diff_part(by_identity(recordings), known, failures, job, difference))
    total.merge(difference)  # as the pipeline does, which sorts the examples
    decision = decide(total, 1, job)
    if job.matches_base and has_lost_groups(job.store, job.base.index):
        decision = replace(decision, todo=True)
    candidates = [change.recording for change in changes if isinstance(change, Candidate)]
    rewrites = not job.base.same_files or any(isinstance(c, Touched | Offer) for c in changes)
    sizes = [recording.size_bytes for recording in candidates]
    # The size of a missing file is −1; a size of 0 may mean that the store does not tell it.
    has_few_bytes = 0 not in sizes and sum(sizes) <= FEW_BYTES
    return Comparison(
        decision,
        len(recordings),
        passed_over,
        len(candidates),
        is_brief=len(candidates) <= _FEW_RECORDINGS
        and has_few_bytes
        and (not rewrites or _is_little(job)),
        # If contents are hashed, whole files are read.
        has_few_headers=len(candidates) <= _FEW_HEADERS
        and (has_few_bytes or not job.content_hashes),
    )


def has_lost_groups(store: Store, index: str) -> bool:
    """Return whether duplicates are left out although the recording that was kept failed.

    It was measured, but its rows could not be computed. Another run keeps the next best.
    """
    matched = read_part(store, index, "matched_recordings", 0, ["duplicate_of"])
    kept = set(matched["duplicate_of"].to_pylist()) - {None}
    columns = ["recording_id", "status"]
    return bool(kept) and any(
        row["status"] == "failed" and row["recording_id"] in kept
        for row in read_index(store, index, "recordings", columns)
    )


def _is_little(job: ExtractJob) -> bool:
    """Return whether one process rewrites a whole snapshot sooner than it starts workers."""
    if job.base.is_nothing:
        return True
    table = read_part(job.store, job.base.index, "recordings", 0, ["rows"])
    rows: int = sum(table["rows"].to_pylist())
    return rows * row_bytes(job.features) <= _FEW_REWRITTEN_BYTES


def _list_few(job: ExtractJob, most: int, passed_over: Counter[str]) -> list[Recording] | None:
    """Return all recordings of the catalogue; ``None`` if they are many, or listing is slow."""
    deadline = time.monotonic() + _MOST_SECONDS
    left_out, recordings = job.left_out(), list[Recording]()
    try:
        for part in catalogue_parts(job.catalogue, deadline):
            for block in list_blocks(job, part, left_out, passed_over, deadline):
                recordings += block
                if len(recordings) > most or time.monotonic() > deadline:
                    return None
    except OutOfTimeError:
        return None
    requests = sum(job.source(r).local_path is None for r in recordings if needs_version(r))
    return None if requests > _MOST_REQUESTS else look_up_versions(job, recordings)


def read_known(
    job: ExtractJob, part: int, parts: int
) -> tuple[Iterator[dict[str, Any]], dict[str, tuple[str, int]]]:
    """Return the snapshot's recordings and failures of a part; its index may have fewer parts."""
    base = job.base
    if base.is_nothing:
        return iter(()), {}
    rows = read_part(job.store, base.index, "recordings", part % base.parts, columns_of(job))
    failed = read_part(job.store, base.index, "failures", part % base.parts, FAILURE_COLUMNS)
    failures = {
        row["recording_id"]: (row["cause"], row["attempts"] or 1) for row in failed.to_pylist()
    }
    known = (
        row
        for batch in rows.to_batches(BLOCK)
        for row in _rows(batch)
        if parts == base.parts or bucket(row["recording_id"], parts) == part
    )
    return known, failures


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch; readings stay in Arrow's form, because few of them are used."""
    if "measures" not in batch.schema.names:
        yield from batch.to_pylist(maps_as_pydicts="strict")
        return
    measures = batch["measures"]
    rows = batch.drop_columns("measures").to_pylist(maps_as_pydicts="strict")
    for number, row in enumerate(rows):
        yield {**row, "measures": measures[number]}
