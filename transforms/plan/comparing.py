"""What changed between a snapshot and its catalogue: one part of both at a time.

A recording is told by its ``recording_id``; what it was when its rows were made, by its
fingerprint. Everything here is a value or a pure function of the listing, of the snapshot's
index and of the configuration, so a repeated run finds the same difference.
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
from melmill.transforms.plan.planning import assign_split, plan_recording

#: Columns of the index's recordings that the difference rests on.
COLUMNS = [
    *("recording_id", "uri", "fingerprint", "status", "split", "labels_digest", "rows", "shards"),
    "rows_digest",
    *("container", "codec", "decoder", "size_bytes", "sample_rate_hz", "channels", "frames"),
    *("seconds", "tags", "content_hash", "peak_dbfs"),
]
FAILURE_COLUMNS = ["recording_id", "cause", "attempts"]

#: A file that was changed within so many seconds of its listing may change once more without
#: another time: those of FAT are two seconds apart.
_COARSE_NS = 2_000_000_000
#: A clock that is further ahead than this is not a clock that runs fast.
_AHEAD_NS = 86_400_000_000_000

#: URIs of each kind of change that are named.
_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Dropped:
    """A recording whose row of the index is not carried over."""

    recording_id: str


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A recording whose rows are carried over, with other labels, URI or split."""

    recording_id: str
    uri: str
    split: str
    labels_digest: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a recording that is tried again was tried before."""

    recording_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Touched:
    """A recording whose rows in a shard do not stay as they are.

    Attributes
    ----------
    shard
        Which shard.
    recording_id
        Which recording.
    recording, split
        What its rows get; ``None`` where they leave.
    """

    shard: str
    recording_id: str
    recording: Recording | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """Rows that leave, unless their content is found under another name, or another time.

    Attributes
    ----------
    content_hash
        What they were made of.
    row
        What the index says of their recording.
    """

    content_hash: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Adopted:
    """A recording whose rows were another's, or its own before its file was touched.

    Attributes
    ----------
    recording_id
        The recording.
    row
        What the index says of it, but for shards that are written anew.
    """

    recording_id: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recording whose rows are to be made.

    Attributes
    ----------
    recording
        As the catalogue lists it now.
    audio
        What its header says, where that is known and the file is the same.
    """

    recording: Recording
    audio: AudioInfo | None = None


@dataclass(slots=True)
class Difference:
    """Counts what changed; adds up over parts.

    Attributes
    ----------
    counts
        Recordings by what is done with them: ``new``, ``changed``, ``removed``, ``retried``,
        ``relabelled`` (rows are carried over), ``recomputed`` (for another configuration),
        ``unchanged``; and ``waiting``, those of the unchanged that failed and are not tried
        again; ``taken_down`` and ``excluded``, listed but left out; ``known``, in the snapshot.
    examples
        URIs of some.
    carried_rows, carried_recordings, carried_failures
        What the snapshot has of those that stay: rows, recordings with or without rows, and
        recordings that failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    carried_rows: int = 0
    carried_recordings: int = 0
    carried_failures: int = 0

    def count(self, kind: str, uri: str) -> None:
        """Count a recording."""
        self.counts[kind] += 1
        some = self.examples.setdefault(kind, [])
        if len(some) < _EXAMPLES:
            some.append(uri)

    def carry(self, status: str, rows: int) -> None:
        """Count what stays of a recording."""
        self.carried_rows += rows
        self.carried_failures += status == "failed"
        self.carried_recordings += status != "failed"

    def merge(self, other: Difference) -> None:
        """Take another part into account."""
        self.counts += other.counts
        for kind, uris in other.examples.items():
            # In the order of their names: parts come in any order.
            some = sorted({*self.examples.get(kind, ()), *uris})
            self.examples[kind] = some[:_EXAMPLES]
        self.carried_rows += other.carried_rows
        self.carried_recordings += other.carried_recordings
        self.carried_failures += other.carried_failures

    def leave_out(self, recording: Recording, reason: str) -> None:
        """Count a recording that was counted as one to be read as one that is left out."""
        self.counts[recording.change] -= 1
        self.count(reason, recording.uri)
        some = self.examples.get(recording.change, [])
        if recording.uri in some:
            some.remove(recording.uri)

    def copy(self) -> Difference:
        """Give one that can be changed without changing this one."""
        examples = {kind: list(uris) for kind, uris in self.examples.items()}
        return replace(self, counts=Counter(self.counts), examples=examples)

    @property
    def removed_ratio(self) -> float:
        """Share of the snapshot's recordings that leave."""
        return self.counts["removed"] / max(1, self.counts["known"])

    @property
    def is_nothing(self) -> bool:
        """Whether every recording stays as it is."""
        return self.counts["unchanged"] == self.counts["known"] and not self.counts["new"]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        kinds = ("new", "changed", "removed", "retried", "relabelled", "recomputed", "unchanged")
        other = ("waiting", "taken_down", "excluded")
        counts = {kind: self.counts[kind] for kind in (*kinds, *other)}
        named = {k: v for k, v in sorted(self.examples.items()) if k not in ("unchanged", "known")}
        return {**counts, "examples": named}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a refresh goes on with, once the whole difference is known.

    Attributes
    ----------
    parts
        Into how many parts the new index's recordings are divided.
    difference
        What changed.
    todo
        Whether there is anything to do.
    """

    parts: int
    difference: Difference
    todo: bool


Change = Dropped | Relabelled | Attempts | Touched | Candidate | Offer


def pack_recordings(recordings: list[Recording]) -> bytes:
    """Make many recordings one small value, for a shuffle."""
    values = [tuple(getattr(one, name) for name in Recording.__slots__) for one in recordings]
    pickled = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
    packed: bytes = pa.compress(pickled, codec="zstd", asbytes=True)
    return len(pickled).to_bytes(8, "big") + packed


def unpack_recordings(packed: bytes) -> list[Recording]:
    """Undo :func:`pack_recordings`.

    >>> one = Recording("id", "/songs/a.wav", "a.wav")
    >>> unpack_recordings(pack_recordings([one])) == [one]
    True
    """
    size = int.from_bytes(packed[:8], "big")
    values = pickle.loads(pa.decompress(packed[8:], size, codec="zstd", asbytes=True))
    return [Recording(*one) for one in values]


def by_identity(recordings: Iterable[Recording]) -> dict[str, Recording]:
    """Key recordings by their identity; ``CatalogueError`` where two have the same."""
    ordered = sorted(recordings, key=lambda one: one.recording_id)
    for one, other in pairwise(ordered):
        if one.recording_id == other.recording_id:
            raise CatalogueError(duplicate_message(one, other))
    return {one.recording_id: one for one in ordered}


def diff_part(
    listed: dict[str, Recording],
    known: Iterable[Mapping[str, Any]],
    failures: Mapping[str, tuple[str, int]],
    job: ExtractJob,
    difference: Difference,
) -> Iterator[Change]:
    """Compare one part of the catalogue with the same part of the snapshot.

    Parameters
    ----------
    listed
        Recordings by ``recording_id``; is emptied. The ``change`` of those that stay out says why.
    known
        Rows of the index's recordings (:data:`COLUMNS`).
    failures
        Cause and attempts of each that failed.
    job
        The refresh.
    difference
        Where it is counted.
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
    """Count a recording whose rows are to be made, and say what it is counted as."""
    difference.count(change, uri)
    return Candidate(replace(recording, change=change), audio)


def _offer(row: Mapping[str, Any], job: ExtractJob) -> Iterator[Change]:
    """Let a recording's rows leave, unless their content turns up again."""
    base, found = job.base, row["content_hash"]
    if job.content_hashes and base.same_features and found and row["status"] == "ok":
        yield Offer(found, dict(row))
    else:
        yield from leave(row, base)


def leave(row: Mapping[str, Any], base: Base) -> Iterator[Dropped | Touched]:
    """Let a recording's rows leave, and what the index says of it."""
    yield Dropped(row["recording_id"])
    # Where nothing of the snapshot stays, nothing has to be told apart.
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
    # A failure that is missing from its table is one that was never tried.
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
        # Where the damage is, and whether there is any still, only a decode tells.
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
    # What a split is drawn from is the name, or among the labels.
    same = job.base.same_split and labels == row["labels_digest"]
    split = row["split"] if same else assign_split(recording, job.split)
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
    """Match rows that leave with recordings of the very same content.

    Parameters
    ----------
    offers
        All of one content.
    probed
        Recordings of that content whose rows are to be made.
    job
        The refresh.

    Yields
    ------
    Adopted, Dropped, Touched
        Of those that were matched, and of rows that leave all the same.
    ProbedRecording
        Those whose rows are to be made.
    """
    ordered = sorted(offers, key=lambda offer: str(offer.row["recording_id"]))
    left = {str(offer.row["recording_id"]): offer for offer in ordered}
    own = set(left)
    # First those that are there under their own name.
    for one in sorted(
        probed, key=lambda p: (p.recording.recording_id not in own, p.recording.recording_id)
    ):
        split = _fitting_split(one, next(iter(left.values()), None), job)
        if split is None:
            yield one
            continue
        name = one.recording.recording_id
        offer = left.pop(name if name in left else next(iter(left)))
        yield from _adopt(offer.row, one, split, job)
    for offer in left.values():
        yield from leave(offer.row, job.base)


def _fitting_split(probed: ProbedRecording, offer: Offer | None, job: ExtractJob) -> str | None:
    """Give the split of a recording that has the rows which are offered."""
    try:
        planned = plan_recording(probed, job.features, job.split, job.limits.max_seconds)
    except RecordingError:
        return None  # planning says so, too, and records it
    return planned.split if offer and planned.rows == offer.row["rows"] else None


def _adopt(
    row: Mapping[str, Any], probed: ProbedRecording, split: str, job: ExtractJob
) -> Iterator[Adopted | Dropped | Touched]:
    recording = probed.recording
    labels = labels_digest(recording)
    yield Dropped(row["recording_id"])
    said = {
        "recording_id": recording.recording_id,
        "uri": recording.uri,
        "fingerprint": recording.fingerprint,
        "feature_key": digest(recording.fingerprint, job.features.digest()),
        "split": split,
        "labels_digest": labels,
        "tags": sorted(row["tags"].items()),
    }
    yield Adopted(recording.recording_id, {**row, **said})
    names = ("recording_id", "uri", "split", "labels_digest")
    if any(row[name] != said[name] for name in names):
        for shard in row["shards"]:
            yield Touched(shard, row["recording_id"], recording, split)


def is_settled(fingerprint: str, listed_ms: int) -> bool:
    """Whether a file that has this fingerprint now must be the one that was listed then.

    A time of modification in whole seconds does not tell two changes within one apart: one that
    is hardly older than the listing says nothing. (Times with fractions do, and whatever is no
    time; a time far in the future was set, and any change would set another.)

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
    """Give the time that a fingerprint is made of; ``None`` where it is of something else."""
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
    """Name what the catalogue's table says of a recording; ``""`` where it says nothing.

    >>> labels_digest(Recording("id", "/a.wav", "a.wav"))
    ''
    """
    if not recording.labels and recording.split is None:
        return ""
    return digest(repr(recording.labels), repr(recording.split))
