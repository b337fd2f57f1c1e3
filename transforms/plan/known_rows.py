"""The rows of a snapshot's index that a run compares with its catalogue, and what becomes of them.

A row is a mapping of the columns of the recordings table (:func:`columns_of`), with ``measures`` as
a ``pyarrow.StructScalar``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo, Recording
from melmill.transforms.plan.change_records import Adopted, Change, Difference, Dropped, Touched
from melmill.transforms.plan.file_versions import is_settled
from melmill.transforms.plan.group_decisions import GroupDecisions
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.splits import assign_split, split_unit

_COLUMNS = [
    *("recording_id", "uri", "fingerprint", "status", "split", "labels_digest", "rows", "shards"),
    "rows_digest",
    *("container", "codec", "decoder", "size_bytes", "sample_rate_hz", "channels", "frames"),
    *("seconds", "tags", "content_hash", "peak_dbfs", "deselected_by", "split_unit"),
    "duplicate_of",
]


def columns_of(job: ExtractJob) -> list[str]:
    """Return the columns of the index's recordings table that the comparison reads.

    The readings are many. They are needed only where a recording gets a new row of the index.
    """
    base = job.base
    is_kept = base.same_features and not job.limits.max_seconds < base.max_seconds
    is_kept = is_kept and (job.select, job.dedupe) == (base.select, base.dedupe)
    is_kept = is_kept and not (job.content_hashes or job.is_matching)
    return _COLUMNS if is_kept else [*_COLUMNS, "measures"]


FAILURE_COLUMNS = ["recording_id", "cause", "attempts"]


def labels_digest(recording: Recording) -> str:
    """Return a digest of a recording's labels and split in the catalogue; ``""`` without any.

    >>> labels_digest(Recording("id", "/a.wav", "a.wav"))
    ''
    """
    if not recording.labels and recording.split is None:
        return ""
    return digest(repr(recording.labels), repr(recording.split))


def is_the_same_file(recording: Recording, row: Mapping[str, Any], base: Base) -> bool:
    """Return whether a listed file is surely the one that a row was made from."""
    return recording.fingerprint == row["fingerprint"] and is_settled(
        recording.fingerprint, base.listed_ms
    )


def named_columns(
    recording: Recording, row: Mapping[str, Any], job: ExtractJob, groups: GroupDecisions | None
) -> dict[str, str]:
    """Return the columns that the catalogue or the group of a recording may change."""
    labels, unit = labels_digest(recording), split_unit(recording, job.split)
    split = groups.splits.get(unit) if groups else None
    if split is None and job.split.stratify and unit and row["split"] in dict(job.split.fractions):
        split = row["split"]
    if split is None:
        # It depends on the name or on the labels, or the unit was in a group before.
        keeps_split = job.base.same_split and labels == row["labels_digest"]
        split = row["split"] if keeps_split else assign_split(recording, job.split)
    return {"uri": recording.uri, "split": split, "labels_digest": labels, "split_unit": unit}


def keeps_columns(row: Mapping[str, Any], named: Mapping[str, str]) -> bool:
    """Return whether the columns that a shard has, too, did not change."""
    return all(row[column] == named[column] for column in ("uri", "split", "labels_digest"))


def leave(row: Mapping[str, Any], base: Base) -> Iterator[Dropped | Touched]:
    """Yield the changes that remove a recording from the index and from its shards."""
    yield Dropped(row["recording_id"])
    # With other features no shard of the snapshot is kept, so no shard must be rewritten.
    if base.same_features:
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"])


def leave_out(
    recording: Recording,
    row: Mapping[str, Any],
    why: dict[str, str],
    job: ExtractJob,
    difference: Difference,
    groups: GroupDecisions | None,
) -> Iterator[Change]:
    """Yield the changes of a recording whose rows are removed, and whose readings are kept.

    Its row is replaced, and not dropped: its damage stays in the failures.
    """
    name, status = row["recording_id"], why["status"]
    named = named_columns(recording, row, job, groups)
    left_out: dict[str, Any] = {
        **{"rows": 0, "shards": [], "rows_digest": None, "peak_dbfs": None},
        **{"deselected_by": None, "duplicate_of": None, **why},
        "measures": measures_in(row),
        "feature_key": digest(row["fingerprint"], job.features.digest()),
        "tags": sorted(row["tags"].items()),
    }
    yield from (Touched(shard, name) for shard in row["shards"])
    yield Adopted(name, {**row, **left_out, **named, "split_unit": named["split_unit"] or None})
    difference.carry(status, 0)
    changed = status
    if row["status"] == status:
        changed = "unchanged" if keeps_columns(row, named) else "relabelled"
    difference.count(changed, row["uri"])


def reading_in(row: Mapping[str, Any], measure: str) -> Any:
    """Return a reading in a row of the index, which is in Arrow's form."""
    value = row["measures"]
    for name in measure.split("."):
        if not value.is_valid:
            return None
        value = value[name]
    return value.as_py()


def measures_in(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the readings in a row of the index, which :func:`read_known` left in Arrow's form."""
    readings: dict[str, Any] | None = row["measures"].as_py()
    return readings


def audio_in(row: Mapping[str, Any]) -> AudioInfo:
    """Return the header of the file that a row was made from."""
    return AudioInfo(
        container=row["container"],
        codec=row["codec"],
        decoder=row["decoder"],
        sample_rate_hz=row["sample_rate_hz"],
        channels=row["channels"],
        frames=row["frames"],
        tags=tuple(sorted(row["tags"].items())),
    )
