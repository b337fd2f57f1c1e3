"""The changes between a snapshot and its catalogue, for one part of both at a time.

The ``recording_id`` identifies a recording; the fingerprint identifies the version of its file.
Everything here is a value or a pure function of the listing, the snapshot's index and the
configuration, so a repeated run finds the same difference.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from melmill.transforms.catalogue.tables import duplicate_message
from melmill.transforms.core.compression import compress, decompress
from melmill.transforms.core.errors import (
    DAMAGE_CAUSES,
    TRANSIENT_CAUSES,
    CatalogueError,
    Cause,
    DatasetError,
)
from melmill.transforms.core.naming import digest, shard_file
from melmill.transforms.core.records import AudioInfo, Recording
from melmill.transforms.measures.selecting import selection_of
from melmill.transforms.plan.change_records import (
    Adopted,
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
from melmill.transforms.plan.fingerprints import is_settled
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.splits import assign_split

_COLUMNS = [
    *("recording_id", "uri", "fingerprint", "status", "split", "labels_digest", "rows", "shards"),
    "rows_digest",
    *("container", "codec", "decoder", "size_bytes", "sample_rate_hz", "channels", "frames"),
    *("seconds", "tags", "content_hash", "peak_dbfs", "deselected_by"),
]


def columns_of(job: ExtractJob) -> list[str]:
    """Return the columns of the index's recordings table that the comparison reads.

    The readings are many. They are needed only where a recording gets a new row of the index.
    """
    base = job.base
    is_kept = base.same_features and not job.limits.max_seconds < base.max_seconds
    is_kept = is_kept and job.select == base.select and not job.content_hashes
    return _COLUMNS if is_kept else [*_COLUMNS, "measures"]


FAILURE_COLUMNS = ["recording_id", "cause", "attempts"]


def pack_recordings(recordings: list[Recording]) -> bytes:
    """Return recordings as compressed bytes, so that a shuffle moves less data."""
    fields = [tuple(getattr(r, name) for name in Recording.__slots__) for r in recordings]
    return compress(pickle.dumps(fields, pickle.HIGHEST_PROTOCOL))


def unpack_recordings(packed: bytes) -> list[Recording]:
    """Return the recordings that :func:`pack_recordings` packed.

    >>> song = Recording("id", "/songs/a.wav", "a.wav")
    >>> unpack_recordings(pack_recordings([song])) == [song]
    True
    """
    return [Recording(*values) for values in pickle.loads(decompress(packed))]


def by_identity(recordings: Iterable[Recording]) -> dict[str, Recording]:
    """Return recordings by ``recording_id``; raise ``CatalogueError`` if an id is not unique."""
    ordered = sorted(recordings, key=lambda recording: recording.recording_id)
    for previous, recording in pairwise(ordered):
        if previous.recording_id == recording.recording_id:
            raise CatalogueError(duplicate_message(previous, recording))
    return {recording.recording_id: recording for recording in ordered}


def diff_part(
    listed: dict[str, Recording],
    known: Iterable[Mapping[str, Any]],
    failures: Mapping[str, tuple[str, int]],
    job: ExtractJob,
    difference: Difference,
) -> Iterator[Change]:
    """Yield the changes between one part of the catalogue and the same part of the snapshot.

    Parameters
    ----------
    listed
        Listed recordings by ``recording_id``. The function removes recordings from it. The
        ``change`` of a recording that is left out is the reason.
    known
        Rows of the index's recordings table (:func:`columns_of`), with ``measures`` as a
        ``pyarrow.StructScalar``.
    failures
        Cause and number of attempts of each failed recording, by ``recording_id``.
    job
        Job of the refresh.
    difference
        Counts, to which the changes are added.
    """
    for row in known:
        name = row["recording_id"]
        difference.counts["known"] += 1
        recording = listed.pop(name, None)
        if recording is None:
            difference.count("removed", row["uri"])
            yield from _offer(row, job)
        elif recording.change:
            difference.count(recording.change, row["uri"])
            yield from leave(row, job.base)
        elif row["status"] == "failed":
            yield from _diff_failed(recording, row, failures.get(name), job, difference)
        else:
            is_damaged = row["status"] == "partial" or name in failures
            yield from _diff_used(recording, row, is_damaged, job, difference)
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
) -> Candidate:
    """Count a recording whose rows must be computed, and return it with its kind of change."""
    difference.count(change, uri)
    return Candidate(replace(recording, change=change), audio)


def _offer(row: Mapping[str, Any], job: ExtractJob) -> Iterator[Change]:
    """Yield an offer of a recording's rows, or their removal if nothing can take them over."""
    base, content_hash = job.base, row["content_hash"]
    is_kept = base.same_features and job.select == base.select
    if job.content_hashes and is_kept and content_hash and row["status"] == "ok":
        yield Offer(content_hash, {**row, "measures": _measures(row)})
    else:
        yield from leave(row, base)


def leave(row: Mapping[str, Any], base: Base) -> Iterator[Dropped | Touched]:
    """Yield the changes that remove a recording from the index and from its shards."""
    yield Dropped(row["recording_id"])
    # With other features no shard of the snapshot is kept, so no shard must be rewritten.
    if base.same_features:
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"])


def _is_the_same_file(recording: Recording, row: Mapping[str, Any], base: Base) -> bool:
    return recording.fingerprint == row["fingerprint"] and is_settled(
        recording.fingerprint, base.listed_ms
    )


def _diff_failed(
    recording: Recording,
    row: Mapping[str, Any],
    failure: tuple[str, int] | None,
    job: ExtractJob,
    difference: Difference,
) -> Iterator[Change]:
    base, refresh = job.base, job.refresh
    # A failed recording without a row in the failures table was never tried.
    cause, attempts = failure or (Cause.CHANGED, 0)
    same = (recording.uri, True) == (row["uri"], _is_the_same_file(recording, row, base))
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
        difference.count("unchanged", row["uri"])
        difference.count("waiting", row["uri"])
        difference.carry("failed", 0)


def _diff_used(
    recording: Recording,
    row: Mapping[str, Any],
    is_damaged: bool,
    job: ExtractJob,
    difference: Difference,
) -> Iterator[Change]:
    base = job.base
    if not _is_the_same_file(recording, row, base):
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
    elif job.select != base.select and row["status"] in ("ok", "deselected"):
        yield from _diff_selection(recording, row, job, difference)
    else:
        yield from _diff_labels(recording, row, job, difference)


def _known_candidate(
    recording: Recording,
    change: str,
    row: Mapping[str, Any],
    job: ExtractJob,
    difference: Difference,
) -> Candidate:
    """Return a recording whose file did not change, with what the index knows of it."""
    base = job.base
    files = [shard_file("parquet", row["split"], shard) for shard in row["shards"]]
    carried_from = tuple(files) if base.unchanged_features else ()
    content_hash = row["content_hash"] or ""
    readings = _measures(row) if set(job.meters) <= set(base.meters) else None
    measures = json.dumps(readings, allow_nan=False) if readings else ""
    known = replace(
        recording, content_hash=content_hash, carried_from=carried_from, measures=measures
    )
    return _candidate(known, change, row["uri"], difference, _audio(row))


def _diff_selection(
    recording: Recording, row: Mapping[str, Any], job: ExtractJob, difference: Difference
) -> Iterator[Change]:
    """Yield the changes of a recording that another selection selected or refused."""
    selection = selection_of(job.select) if job.select else None
    refused_by = selection.refused_by(partial(_reading, row)) if selection else ""
    if not refused_by and row["status"] == "deselected":
        yield Dropped(row["recording_id"])
        yield _known_candidate(recording, "selected", row, job, difference)
    elif refused_by and refused_by != row["deselected_by"]:
        yield from leave(row, job.base)
        labels = labels_digest(recording)
        split = _split(recording, row, labels, job)
        refused: dict[str, Any] = {
            "status": "deselected",
            "deselected_by": refused_by,
            "rows": 0,
            "shards": [],
        }
        named = {"uri": recording.uri, "split": split, "labels_digest": labels}
        measured = {"rows_digest": None, "peak_dbfs": None, "measures": _measures(row)}
        name = row["recording_id"]
        unchanged = {
            "feature_key": digest(row["fingerprint"], job.features.digest()),
            "tags": sorted(row["tags"].items()),
        }
        yield Adopted(name, {**row, **unchanged, **refused, **named, **measured})
        difference.carry("deselected", 0)
        changed = "deselected"
        if row["status"] == "deselected":
            before = row["uri"], row["split"], row["labels_digest"]
            changed = "unchanged" if (recording.uri, split, labels) == before else "relabelled"
        difference.count(changed, row["uri"])
    else:
        yield from _diff_labels(recording, row, job, difference)


def _reading(row: Mapping[str, Any], measure: str) -> Any:
    """Return a reading in a row of the index, which is in Arrow's form."""
    value = row["measures"]
    for name in measure.split("."):
        if not value.is_valid:
            return None
        value = value[name]
    return value.as_py()


def _measures(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the readings in a row of the index, which :func:`read_known` left in Arrow's form."""
    readings: dict[str, Any] | None = row["measures"].as_py()
    return readings


def _diff_labels(
    recording: Recording, row: Mapping[str, Any], job: ExtractJob, difference: Difference
) -> Iterator[Change]:
    labels = labels_digest(recording)
    split = _split(recording, row, labels, job)
    before = row["uri"], row["split"], row["labels_digest"]
    difference.carry(row["status"], row["rows"])
    if (recording.uri, split, labels) == before:
        difference.count("unchanged", row["uri"])
        return
    difference.count("relabelled", row["uri"])
    yield Relabelled(row["recording_id"], recording.uri, split, labels)
    for shard in row["shards"]:
        yield Touched(shard, row["recording_id"], recording, split)


def _split(recording: Recording, row: Mapping[str, Any], labels: str, job: ExtractJob) -> str:
    # The split depends on the name or on the labels, so with the same labels it is the same.
    keeps_split = job.base.same_split and labels == row["labels_digest"]
    return row["split"] if keeps_split else assign_split(recording, job.split)


def _audio(row: Mapping[str, Any]) -> AudioInfo:
    return AudioInfo(
        container=row["container"],
        codec=row["codec"],
        decoder=row["decoder"],
        sample_rate_hz=row["sample_rate_hz"],
        channels=row["channels"],
        frames=row["frames"],
        tags=tuple(sorted(row["tags"].items())),
    )


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


def labels_digest(recording: Recording) -> str:
    """Return a digest of a recording's labels and split in the catalogue; ``""`` without any.

    >>> labels_digest(Recording("id", "/a.wav", "a.wav"))
    ''
    """
    if not recording.labels and recording.split is None:
        return ""
    return digest(repr(recording.labels), repr(recording.split))
