"""New recordings take over removed rows that were made from exactly the same content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.plan.change_records import Adopted, Dropped, Offer, Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.known_rows import labels_digest, leave
from melmill.transforms.plan.recordings import plan_recording


def adopt(
    offers: Iterable[Offer], probed: Iterable[ProbedRecording], job: ExtractJob
) -> Iterator[Adopted | Dropped | Touched | ProbedRecording]:
    """Match offered rows with recordings that have exactly the same content.

    Parameters
    ----------
    offers
        All offers with one content hash.
    probed
        Recordings with the same content hash, whose rows must otherwise be computed.
    job
        Job of the refresh.

    Yields
    ------
    Adopted, Dropped, Touched
        Changes for rows that a recording takes over, and for rows that are removed.
    ProbedRecording
        Recordings whose rows must be computed.
    """
    ordered = sorted(offers, key=lambda offer: str(offer.row["recording_id"]))
    remaining = {str(offer.row["recording_id"]): offer for offer in ordered}
    offered_ids = set(remaining)
    # Recordings whose own rows are offered come first.
    for candidate in sorted(
        probed,
        key=lambda p: (p.recording.recording_id not in offered_ids, p.recording.recording_id),
    ):
        split = _fitting_split(candidate, next(iter(remaining.values()), None), job)
        if split is None:
            yield candidate
            continue
        name = candidate.recording.recording_id
        offer = remaining.pop(name if name in remaining else next(iter(remaining)))
        yield from _adopt(offer.row, candidate, split, job)
    for offer in remaining.values():
        yield from leave(offer.row, job.base)


def _fitting_split(probed: ProbedRecording, offer: Offer | None, job: ExtractJob) -> str | None:
    """Return the recording's split if the offered rows fit the recording; else ``None``."""
    try:
        planned = plan_recording(probed, job.features, job.split, job.limits.max_seconds)
    except RecordingError:
        return None  # planning raises the same error, and records it
    return planned.split if offer and planned.rows == offer.row["rows"] else None


def _adopt(
    row: Mapping[str, Any], probed: ProbedRecording, split: str, job: ExtractJob
) -> Iterator[Adopted | Dropped | Touched]:
    recording = probed.recording
    labels = labels_digest(recording)
    yield Dropped(row["recording_id"])
    updates = {
        "recording_id": recording.recording_id,
        "uri": recording.uri,
        "fingerprint": recording.fingerprint,
        "feature_key": digest(recording.fingerprint, job.features.digest()),
        "split": split,
        "labels_digest": labels,
        "tags": sorted(row["tags"].items()),
        # Only runs that look for no duplicates adopt rows.
        **{"duplicate_of": None, "split_unit": None},
    }
    yield Adopted(recording.recording_id, {**row, **updates})
    names = ("recording_id", "uri", "split", "labels_digest")
    if any(row[name] != updates[name] for name in names):
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"], recording, split)
