"""The changes between a snapshot and its catalogue, for one part of both at a time.

The ``recording_id`` identifies a recording; the fingerprint identifies the version of its file.
Everything here is a value or a pure function of the listing, the snapshot's index and the
configuration, so a repeated run finds the same difference.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa

from melmill.transforms.catalogue.tables import duplicate_message
from melmill.transforms.core.errors import (
    DAMAGE_CAUSES,
    TRANSIENT_CAUSES,
    CatalogueError,
    Cause,
    RecordingError,
)
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo, ProbedRecording, Recording
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.recordings import plan_recording
from melmill.transforms.plan.splits import assign_split

#: Columns of the index's recordings table that the comparison reads.
COLUMNS = [
    *("recording_id", "uri", "fingerprint", "status", "split", "labels_digest", "rows", "shards"),
    "rows_digest",
    *("container", "codec", "decoder", "size_bytes", "sample_rate_hz", "channels", "frames"),
    *("seconds", "tags", "content_hash", "peak_dbfs"),
]
FAILURE_COLUMNS = ["recording_id", "cause", "attempts"]

#: If a file changed less than this before its listing, a second change may leave the same
#: modification time: FAT stores times in steps of two seconds.
_COARSE_NS = 2_000_000_000
#: A modification time further in the future than this is not the error of a fast clock.
_AHEAD_NS = 86_400_000_000_000

#: Maximum number of example URIs for each kind of change.
_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Dropped:
    """A recording whose row in the index is not carried over."""

    recording_id: str


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A recording whose rows are carried over with a new URI, new labels or a new split."""

    recording_id: str
    uri: str
    split: str
    labels_digest: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """The number of earlier attempts for a failed recording that is retried."""

    recording_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Touched:
    """A recording whose rows in a shard change or are removed.

    Attributes
    ----------
    shard
        Name of the shard.
    recording_id
        Id of the recording, as the shard has it.
    recording, split
        New recording and new split of the rows; ``None`` if the rows are removed.
    """

    shard: str
    recording_id: str
    recording: Recording | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """Rows that are removed, unless a listed file has the same content.

    That file may have a new name, or only a new modification time.

    Attributes
    ----------
    content_hash
        Hash of the content that the rows were made from.
    row
        Row of the recording in the index.
    """

    content_hash: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Adopted:
    """A recording that takes over existing rows.

    The rows belonged to another recording, or to this recording before its file got a new
    modification time.

    Attributes
    ----------
    recording_id
        Id of the recording.
    row
        Row of the recording in the new index, before names of rewritten shards are replaced.
    """

    recording_id: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recording whose rows must be computed.

    Attributes
    ----------
    recording
        Recording, as the catalogue lists it now.
    audio
        Header from the index, if the file did not change; else ``None``.
    """

    recording: Recording
    audio: AudioInfo | None = None


@dataclass(slots=True)
class Difference:
    """The number of changes of each kind; the differences of parts can be added up.

    Attributes
    ----------
    counts
        Number of recordings by kind: ``new``, ``changed``, ``removed``, ``retried``,
        ``relabelled`` (rows are carried over), ``recomputed`` (the configuration changed),
        ``unchanged``; ``waiting``: unchanged recordings that failed and are not retried;
        ``taken_down`` and ``excluded``: listed but left out; ``known``: in the snapshot.
    examples
        Some URIs of each kind.
    carried_rows, carried_recordings, carried_failures
        Number of rows, of recordings that did not fail (with or without rows), and of failed
        recordings that are carried over from the snapshot.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    carried_rows: int = 0
    carried_recordings: int = 0
    carried_failures: int = 0

    def count(self, kind: str, uri: str) -> None:
        """Count a recording, and keep its URI if there are few examples yet."""
        self.counts[kind] += 1
        uris = self.examples.setdefault(kind, [])
        if len(uris) < _EXAMPLES:
            uris.append(uri)

    def carry(self, status: str, rows: int) -> None:
        """Count a recording that is carried over, and its rows."""
        self.carried_rows += rows
        self.carried_failures += status == "failed"
        self.carried_recordings += status != "failed"

    def merge(self, other: Difference) -> None:
        """Add the difference of another part."""
        self.counts += other.counts
        for kind, uris in other.examples.items():
            # Sorted, because parts come in any order.
            merged = sorted({*self.examples.get(kind, ()), *uris})
            self.examples[kind] = merged[:_EXAMPLES]
        self.carried_rows += other.carried_rows
        self.carried_recordings += other.carried_recordings
        self.carried_failures += other.carried_failures

    def leave_out(self, recording: Recording, reason: str) -> None:
        """Move a recording from its kind of change to a reason for leaving it out."""
        self.counts[recording.change] -= 1
        self.count(reason, recording.uri)
        uris = self.examples.get(recording.change, [])
        if recording.uri in uris:
            uris.remove(recording.uri)

    def copy(self) -> Difference:
        """Return an independent copy."""
        examples = {kind: list(uris) for kind, uris in self.examples.items()}
        return replace(self, counts=Counter(self.counts), examples=examples)

    @property
    def removed_ratio(self) -> float:
        """Share of the snapshot's recordings that are removed."""
        return self.counts["removed"] / max(1, self.counts["known"])

    @property
    def is_nothing(self) -> bool:
        """Whether no recording changed."""
        return self.counts["unchanged"] == self.counts["known"] and not self.counts["new"]

    def to_json(self) -> dict[str, Any]:
        """Return the counts and examples as values that JSON can hold."""
        kinds = ("new", "changed", "removed", "retried", "relabelled", "recomputed", "unchanged")
        more_kinds = ("waiting", "taken_down", "excluded")
        counts = {kind: self.counts[kind] for kind in (*kinds, *more_kinds)}
        hidden = ("unchanged", "known")
        examples = {k: uris for k, uris in sorted(self.examples.items()) if k not in hidden}
        return {**counts, "examples": examples}


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision how a run continues, made when the whole difference is known.

    Attributes
    ----------
    parts
        Number of parts of the new index.
    difference
        Difference between snapshot and catalogue.
    todo
        Whether there is anything to do.
    """

    parts: int
    difference: Difference
    todo: bool


Change = Dropped | Relabelled | Attempts | Touched | Candidate | Offer


def pack_recordings(recordings: list[Recording]) -> bytes:
    """Return recordings as compressed bytes, so that a shuffle moves less data."""
    fields = [tuple(getattr(r, name) for name in Recording.__slots__) for r in recordings]
    pickled = pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)
    packed: bytes = pa.compress(pickled, codec="zstd", asbytes=True)
    return len(pickled).to_bytes(8, "big") + packed


def unpack_recordings(packed: bytes) -> list[Recording]:
    """Return the recordings that :func:`pack_recordings` packed.

    >>> song = Recording("id", "/songs/a.wav", "a.wav")
    >>> unpack_recordings(pack_recordings([song])) == [song]
    True
    """
    size = int.from_bytes(packed[:8], "big")
    fields = pickle.loads(pa.decompress(packed[8:], size, codec="zstd", asbytes=True))
    return [Recording(*values) for values in fields]


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
        Rows of the index's recordings table (:data:`COLUMNS`).
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
            yield from _diff_used(recording, row, job, difference)
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
    if job.content_hashes and base.same_features and content_hash and row["status"] == "ok":
        yield Offer(content_hash, dict(row))
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
    recording: Recording, row: Mapping[str, Any], job: ExtractJob, difference: Difference
) -> Iterator[Change]:
    base = job.base
    if not _is_the_same_file(recording, row, base):
        yield from _offer(row, job)
        yield _candidate(recording, "changed", row["uri"], difference)
    elif row["status"] == "partial" and (
        base.damaged != job.limits.damaged or not base.same_features
    ):
        # Only a decode shows where the damage is, and whether there still is damage.
        yield from leave(row, base)
        yield _candidate(recording, "recomputed", row["uri"], difference)
    elif not base.same_features or row["seconds"] > job.limits.max_seconds < base.max_seconds:
        yield from leave(row, base)
        known = replace(recording, content_hash=row["content_hash"] or "")
        yield _candidate(known, "recomputed", row["uri"], difference, _audio(row))
    else:
        yield from _diff_labels(recording, row, job, difference)


def _diff_labels(
    recording: Recording, row: Mapping[str, Any], job: ExtractJob, difference: Difference
) -> Iterator[Change]:
    labels = labels_digest(recording)
    # The split depends on the name or on the labels, so with the same labels it is the same.
    keeps_split = job.base.same_split and labels == row["labels_digest"]
    split = row["split"] if keeps_split else assign_split(recording, job.split)
    before = row["uri"], row["split"], row["labels_digest"]
    difference.carry(row["status"], row["rows"])
    if (recording.uri, split, labels) == before:
        difference.count("unchanged", row["uri"])
        return
    difference.count("relabelled", row["uri"])
    yield Relabelled(row["recording_id"], recording.uri, split, labels)
    for shard in row["shards"]:
        yield Touched(shard, row["recording_id"], recording, split)


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
    }
    yield Adopted(recording.recording_id, {**row, **updates})
    names = ("recording_id", "uri", "split", "labels_digest")
    if any(row[name] != updates[name] for name in names):
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"], recording, split)


def is_settled(fingerprint: str, listed_ms: int) -> bool:
    """Return whether an equal fingerprint proves that the file did not change since the listing.

    A modification time in whole seconds cannot distinguish two changes within one second. If
    such a time is only a little older than the listing, it proves nothing. Times with
    fractions, and fingerprints that are not times, do prove it. So does a time far in the
    future: somebody set it, and a later change would set another time.

    >>> is_settled("mtime:1700000000000000000:123", 1_700_000_001_000)
    False
    >>> is_settled("mtime:1700000000000000000:123", 1_700_000_009_000)
    True
    >>> is_settled("mtime:1700000000000000001:123", 1_700_000_001_000)
    True
    """
    modified_ns = _modified_ns(fingerprint)
    if modified_ns is None or modified_ns % 1_000_000_000:
        return True
    listed_ns = listed_ms * 1_000_000
    return not listed_ns - _COARSE_NS <= modified_ns <= listed_ns + _AHEAD_NS


def _modified_ns(fingerprint: str) -> int | None:
    """Return the modification time in a fingerprint; ``None`` if it contains no time."""
    kind, _, rest = fingerprint.partition(":")
    stamp = rest.rpartition(":")[0]
    if kind != "mtime":
        return None
    if stamp.isdecimal():
        return int(stamp)
    try:
        return round(datetime.fromisoformat(stamp).timestamp() * 1e6) * 1000
    except ValueError:
        return None


def labels_digest(recording: Recording) -> str:
    """Return a digest of a recording's labels and split in the catalogue; ``""`` without any.

    >>> labels_digest(Recording("id", "/a.wav", "a.wav"))
    ''
    """
    if not recording.labels and recording.split is None:
        return ""
    return digest(repr(recording.labels), repr(recording.split))
