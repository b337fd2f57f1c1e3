"""The kinds of change between a snapshot and its catalogue, and their numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from melmill.transforms.catalogue.left_out import EXCLUDED, TAKEN_DOWN
from melmill.transforms.catalogue.licenses import OTHER_LICENSE
from melmill.transforms.core.records import AudioInfo, Recording

#: Maximum number of example URIs for each kind of change.
_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Dropped:
    """A recording whose row in the index is not carried over."""

    recording_id: str


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A recording whose rows are carried over with new values of some columns."""

    recording_id: str
    uri: str
    split: str
    labels_digest: str
    split_unit: str = ""
    duplicate_of: str = ""


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

    The listed file may have a new name, or only a new modification time.

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
    by_groups
        Whether its rows must be computed because no duplicate of it is kept any more.
    """

    recording: Recording
    audio: AudioInfo | None = None
    by_groups: bool = False


@dataclass(slots=True)
class Difference:
    """The number of changes of each kind; the differences of parts can be added up.

    Attributes
    ----------
    counts
        Number of recordings by kind: ``new``, ``changed``, ``removed``, ``retried``,
        ``relabelled`` (rows are carried over), ``recomputed`` (the configuration changed),
        ``selected`` and ``deselected`` (by another selection or by ``dedupe``), ``duplicate``
        (left out from now on, because a duplicate is kept), ``unchanged``; ``waiting``:
        unchanged recordings that failed and are not retried; ``taken_down``, ``excluded`` and
        ``other_license``: listed but left out; ``known``: in the snapshot.
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
    def computed(self) -> int:
        """Number of recordings that must be computed."""
        kinds = ("new", "changed", "retried", "recomputed", "selected")
        return sum(self.counts[kind] for kind in kinds)

    @property
    def is_nothing(self) -> bool:
        """Whether no recording changed."""
        return self.counts["unchanged"] == self.counts["known"] and not self.counts["new"]

    def to_json(self) -> dict[str, Any]:
        """Return the counts and examples as values that JSON can hold."""
        kinds = ("new", "changed", "removed", "retried", "relabelled", "recomputed", "unchanged")
        more_kinds = ("selected", "deselected", "duplicate", "waiting")
        left_out = (TAKEN_DOWN, EXCLUDED, OTHER_LICENSE)
        counts = {kind: self.counts[kind] for kind in (*kinds, *more_kinds, *left_out)}
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


Change = Dropped | Relabelled | Attempts | Touched | Candidate | Offer | Adopted
