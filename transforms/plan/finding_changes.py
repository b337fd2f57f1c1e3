"""The changes between a snapshot and its catalogue, for one part of both at a time.

The ``recording_id`` identifies a recording; the fingerprint identifies the version of its file.
Everything here is a value or a pure function of the listing, the snapshot's index and the
configuration, so a repeated run finds the same difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from melmill.transforms.core.errors import (
    DAMAGE_CAUSES,
    TRANSIENT_CAUSES,
    Cause,
    DatasetError,
)
from melmill.transforms.core.naming import shard_file
from melmill.transforms.core.records import WITH_ROWS, AudioInfo, Recording
from melmill.transforms.measures.expressions import selection_of
from melmill.transforms.plan.change_records import (
    Attempts,
    Candidate,
    Change,
    Decision,
    Difference,
    Dropped,
    Offer,
    Relabelled,
    Touched,
)
from melmill.transforms.plan.group_decisions import GroupDecisions
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.known_rows import (
    audio_in,
    is_the_same_file,
    keeps_columns,
    leave,
    leave_out,
    measures_in,
    named_columns,
    reading_in,
)


def diff_part(
    listed: dict[str, Recording],
    known: Iterable[Mapping[str, Any]],
    failures: Mapping[str, tuple[str, int]],
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None = None,
) -> Iterator[Change]:
    """Yield the changes between one part of the catalogue and the same part of the snapshot.

    If a job matches new recordings with those of the snapshot, it compares twice: first to find the
    new recordings, then with the decisions about all groups.

    Parameters
    ----------
    listed
        Listed recordings by ``recording_id``. The function removes recordings from it. The
        ``change`` of a recording that is left out is the reason.
    known
        Rows of the index's recordings table; see :mod:`~melmill.transforms.plan.known_rows`.
    failures
        Cause and number of attempts of each failed recording, by ``recording_id``.
    job
        Job of the refresh.
    difference
        Counts, to which the changes are added.
    groups
        Decisions about groups of duplicates; ``None`` the first time, or if none are looked for.
    """
    for row in known:
        name = row["recording_id"]
        difference.counts["known"] += 1
        recording = listed.pop(name, None)
        if recording is not None and job.split.stratify and row["status"] in WITH_ROWS:
            recording = replace(recording, known_split=row["split"] or "")
        if recording is None:
            difference.count("removed", row["uri"])
            yield from _offer(row, job)
        elif recording.change:
            difference.count(recording.change, row["uri"])
            yield from leave(row, job.base)
        elif row["status"] == "failed":
            yield from _diff_failed(recording, row, failures.get(name), job, difference, groups)
        else:
            is_damaged = row["status"] == "partial" or name in failures
            yield from _diff_used(recording, row, is_damaged, job, difference, groups)
    for recording in listed.values():
        if recording.change:
            difference.count(recording.change, recording.uri)
        else:
            yield _candidate(recording, "new", recording.uri, difference)


def _candidate(
    recording: Recording,
    change: str,
    uri: str,
    difference: Difference,
    audio: AudioInfo | None = None,
    by_groups: bool = False,
) -> Candidate:
    """Count a recording whose rows must be computed, and return it with its kind of change."""
    difference.count(change, uri)
    return Candidate(replace(recording, change=change), audio, by_groups)


def _offer(row: Mapping[str, Any], job: ExtractJob) -> Iterator[Change]:
    """Yield an offer of a recording's rows, or their removal if nothing can take them over."""
    base, content_hash = job.base, row["content_hash"]
    is_kept = base.same_features and job.select == base.select and not job.is_matching
    # What is drawn for a variant depends on the recording's id, and not only on its content.
    is_kept = is_kept and not job.features.variants
    if job.content_hashes and is_kept and content_hash and row["status"] == "ok":
        yield Offer(content_hash, {**row, "measures": measures_in(row)})
    else:
        yield from leave(row, base)


def _diff_failed(
    recording: Recording,
    row: Mapping[str, Any],
    failure: tuple[str, int] | None,
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    base, refresh = job.base, job.refresh
    # A failed recording without a row in the failures table was never tried.
    cause, attempts = failure or (Cause.CHANGED, 0)
    same = (recording.uri, True) == (row["uri"], is_the_same_file(recording, row, base))
    transient = cause in TRANSIENT_CAUSES and attempts < refresh.max_attempts
    limited = cause == Cause.TOO_LONG and base.max_seconds != job.limits.max_seconds
    limited |= cause in DAMAGE_CAUSES and base.damaged != job.limits.damaged
    if not same or not base.same_features:
        yield Dropped(row["recording_id"])
        change = "recomputed" if same else "changed"
        yield _candidate(recording, change, row["uri"], difference)
    elif transient or limited or refresh.retry_failed:
        yield Dropped(row["recording_id"])
        yield Attempts(row["recording_id"], attempts)
        yield _candidate(recording, "retried", row["uri"], difference)
    else:
        if job.matches_base and groups is None:
            yield Dropped(row["recording_id"])  # it is in no group, although it may have been
        difference.count("unchanged", row["uri"])
        difference.count("waiting", row["uri"])
        difference.carry("failed", 0)


def _diff_used(
    recording: Recording,
    row: Mapping[str, Any],
    is_damaged: bool,
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    base = job.base
    if not is_the_same_file(recording, row, base):
        yield from _offer(row, job)
        yield _candidate(recording, "changed", row["uri"], difference)
    elif is_damaged and (
        base.damaged != job.limits.damaged or base.select != job.select or not base.same_features
    ):
        # Only a decode shows where the damage is, and whether there still is damage.
        yield from leave(row, base)
        yield _candidate(recording, "recomputed", row["uri"], difference)
    elif not base.same_features or row["seconds"] > job.limits.max_seconds < base.max_seconds:
        yield from leave(row, base)
        yield _known_candidate(recording, "recomputed", row, job, difference)
    elif job.select != base.select and row["status"] in ("ok", "deselected", "duplicate"):
        yield from _diff_selection(recording, row, is_damaged, job, difference, groups)
    else:
        yield from _diff_group(recording, row, is_damaged, job, difference, groups)


def _known_candidate(
    recording: Recording,
    change: str,
    row: Mapping[str, Any],
    job: ExtractJob,
    difference: Difference,
    by_groups: bool = False,
) -> Candidate:
    """Return a recording whose file did not change, with what the index knows of it."""
    base = job.base
    files = [shard_file("parquet", row["split"], shard) for shard in row["shards"]]
    carried_from = tuple(files) if base.unchanged_features else ()
    content_hash = row["content_hash"] or ""
    readings = measures_in(row) if set(job.meters) <= set(base.meters) else None
    measures = json.dumps(readings, allow_nan=False) if readings else ""
    known = replace(
        recording, content_hash=content_hash, carried_from=carried_from, measures=measures
    )
    return _candidate(known, change, row["uri"], difference, audio_in(row), by_groups)


def _diff_selection(
    recording: Recording,
    row: Mapping[str, Any],
    is_damaged: bool,
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    """Yield the changes of a recording that another selection selected or refused."""
    selection = selection_of(job.select) if job.select else None
    refused_by = selection.refused_by(partial(reading_in, row)) if selection else ""
    if not refused_by and row["status"] == "deselected":
        yield Dropped(row["recording_id"])
        yield _known_candidate(recording, "selected", row, job, difference)
    elif refused_by and refused_by != row["deselected_by"]:
        why = {"status": "deselected", "deselected_by": refused_by}
        yield from leave_out(recording, row, why, job, difference, groups)
    else:
        yield from _diff_group(recording, row, is_damaged, job, difference, groups)


def _diff_group(
    recording: Recording,
    row: Mapping[str, Any],
    is_damaged: bool,
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    """Yield the changes of a recording that has the same duplicates, others, or none any more."""
    name, status, before = row["recording_id"], row["status"], row["duplicate_of"] or ""
    if groups is not None:
        after, is_left_out = groups.duplicate_of.get(name, ""), bool(groups.kept_instead_of(name))
    else:
        # The first time, all stay as they are. If no duplicates are looked for, all have rows.
        after, is_left_out = (before, status == "duplicate") if job.matches_base else ("", False)
    # What it is a duplicate of may have been taken down: then it is matched again.
    if status == "duplicate" and not (is_left_out and before):
        yield Dropped(name)
        by_groups = groups is not None and before != ""
        if is_damaged:  # the index has the length before the damage
            uri = row["uri"]
            yield _candidate(recording, "selected", uri, difference, by_groups=by_groups)
        else:
            yield _known_candidate(recording, "selected", row, job, difference, by_groups)
    elif is_left_out and status in WITH_ROWS:
        why = {"status": "duplicate", "duplicate_of": after}
        yield from leave_out(recording, row, why, job, difference, groups)
    else:
        yield from _diff_labels(recording, row, after, job, difference, groups)


def _diff_labels(
    recording: Recording,
    row: Mapping[str, Any],
    duplicate_of: str,
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    named = named_columns(recording, row, job, groups)
    difference.carry(row["status"], row["rows"])
    is_same = keeps_columns(row, named)
    if is_same and duplicate_of == (row["duplicate_of"] or ""):
        difference.count("unchanged", row["uri"])
        return
    difference.count("relabelled", row["uri"])
    yield Relabelled(row["recording_id"], **named, duplicate_of=duplicate_of)
    if not is_same:
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"], recording, named["split"])


def decide(difference: Difference, parts: int, job: ExtractJob) -> Decision:
    """Return the decision how a run continues.

    Raises
    ------
    DatasetError
        If the run would remove too many recordings.
    """
    base, allowed = job.base, job.refresh.max_removed_ratio
    if base.is_nothing:
        return Decision(parts, difference, todo=True)
    removed, known = difference.counts["removed"], difference.counts["known"]
    if difference.removed_ratio > allowed:
        uris = ", ".join(difference.examples["removed"][:3]) + ", …" * (removed > 3)
        raise DatasetError(
            f"{job.catalogue.uri} lacks {removed:,} of the {known:,} recordings of version "
            f"{base.version} ({difference.removed_ratio:.1%}; {uris}), but "
            f"refresh.max_removed_ratio allows {allowed:.1%}; nothing was changed. To remove "
            "these recordings: melmill refresh --allow-removals"
        )
    return Decision(parts, difference, is_todo(difference, base))


def is_todo(difference: Difference, base: Base) -> bool:
    """Return whether a run has anything to do."""
    return not (difference.is_nothing and base.same_files and base.configured)
