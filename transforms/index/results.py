"""Facts: the records from which an index is written, each about one recording or one shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import pyarrow as pa

from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.core.records import Failure
from melmill.transforms.plan.change_records import Adopted, Attempts, Dropped, Relabelled
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.summaries import RecordingRows, ShardSummary

#: Digests of facts are numbers below this; sums of them do not depend on the order.
DIGEST_MODULUS = 1 << 128


class Kind(StrEnum):
    """The kind of a fact, which determines the type of its value.

    About a recording: ``PLANNED`` (:class:`PlannedRecording`), ``FAILED`` (:class:`Failure`),
    ``TRIED`` (number of attempts before), ``HELD`` (:class:`Held`), ``MEASURED``
    (:class:`~melmill.transforms.core.records.MeasuredPart`), ``DROPPED`` (``None``: its row is
    not carried over), ``RELABELLED`` (:class:`Relabelled`), ``ADOPTED`` (its row of the index),
    ``MOVED`` (:class:`Moved`). About a shard: ``WRITTEN`` (:class:`ShardSummary`), ``REPLACED``
    (``None``: it is not in the new snapshot). About a part of a table: ``CARRIED``
    (:class:`Carried`). About all duplicates: ``GROUPED`` (a ``pyarrow.Table``).
    """

    PLANNED = "planned"
    FAILED = "failed"
    TRIED = "tried"
    HELD = "held"
    MEASURED = "measured"
    DROPPED = "dropped"
    RELABELLED = "relabelled"
    ADOPTED = "adopted"
    MOVED = "moved"
    WRITTEN = "written"
    REPLACED = "replaced"
    CARRIED = "carried"
    GROUPED = "grouped"


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact.

    Attributes
    ----------
    table
        Table of the index that the fact belongs to: ``recordings`` (with ``failures``), ``shards``
        or a table about duplicates.
    name
        ``recording_id``, or the shard's name; ``""`` if the fact is about a whole part.
    kind
        Kind of the fact.
    value
        Details; see :class:`Kind`.
    again
        Whether the recording was planned and written again. Such facts replace the facts from
        the first time.
    """

    table: str
    name: str
    kind: Kind
    value: Any = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Rows of a recording in one shard."""

    shard: str
    rows: RecordingRows


@dataclass(frozen=True, slots=True)
class Moved:
    """Rows of a recording that moved from replaced shards to a new shard."""

    replaced: tuple[str, ...]
    shard: str


@dataclass(frozen=True, slots=True)
class Carried:
    """A part of the index into which the previous snapshot's rows are carried over.

    Attributes
    ----------
    parts
        Number of parts of the new index.
    part
        Number of this part.
    without
        Recordings that are erased, also where they are named as duplicates of others.
    """

    parts: int
    part: int
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupTables:
    """The tables of an index about duplicates; see ``SCHEMAS`` in the index's tables."""

    matches: pa.Table
    matched_recordings: pa.Table
    split_units: pa.Table

    def by_name(self) -> dict[str, pa.Table]:
        """Return the tables by their names in an index."""
        return {name: getattr(self, name) for name in GROUP_TABLES}


#: Names of the tables about duplicates.
GROUP_TABLES = ("matches", "matched_recordings", "split_units")


@dataclass(frozen=True, slots=True)
class Replaced:
    """A shard of the previous snapshot that is not in the new one."""

    shard: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A shard that holds rows of replaced shards."""

    replaced: tuple[str, ...]
    summary: ShardSummary


@dataclass(frozen=True, slots=True)
class Again:
    """A result of planning and writing a recording again."""

    result: PlannedRecording | Failure | ShardSummary


#: Results of the steps before the index; each result contains one or more facts.
Result: TypeAlias = (
    PlannedRecording
    | Failure
    | ShardSummary
    | Again
    | Rewritten
    | Replaced
    | Dropped
    | Relabelled
    | Attempts
    | Adopted
    | Carried
    | GroupTables
)


def facts_of(result: Result, again: bool = False) -> Iterator[Fact]:
    """Yield the facts in a step's result."""
    match result:
        case PlannedRecording():
            name = result.probed.recording.recording_id
            yield Fact("recordings", name, Kind.PLANNED, result, again)
        case Failure():
            yield Fact("recordings", result.recording_id, Kind.FAILED, result, again)
        case ShardSummary():
            yield Fact("shards", result.name, Kind.WRITTEN, result.of_rows)
            for rows in result.recordings:
                yield Fact("recordings", rows.recording_id, Kind.HELD, Held(result.name, rows))
            for part in result.measured:
                yield Fact("recordings", part.recording_id, Kind.MEASURED, part)
            for failure in result.failures:
                yield from facts_of(failure, again)
        case Again():
            yield from facts_of(result.result, again=True)
        case Rewritten():
            yield Fact("shards", result.summary.name, Kind.WRITTEN, result.summary)
            moved = Moved(result.replaced, result.summary.name)
            for rows in result.summary.recordings:
                yield Fact("recordings", rows.recording_id, Kind.MOVED, moved)
        case Replaced():
            yield Fact("shards", result.shard, Kind.REPLACED)
        case Dropped():
            yield Fact("recordings", result.recording_id, Kind.DROPPED)
        case Relabelled():
            yield Fact("recordings", result.recording_id, Kind.RELABELLED, result)
        case Attempts():
            yield Fact("recordings", result.recording_id, Kind.TRIED, result.attempts)
        case Adopted():
            yield Fact("recordings", result.recording_id, Kind.ADOPTED, result.row)
        case Carried():
            yield Fact("shards", "", Kind.CARRIED, result)
            yield Fact("recordings", "", Kind.CARRIED, result)
            if result.part == 0:
                yield from (Fact(name, "", Kind.CARRIED, result) for name in GROUP_TABLES)
        case GroupTables():
            for name, table in result.by_name().items():
                yield Fact(name, "", Kind.GROUPED, table)


def key_by_part(result: Result, parts: int) -> Iterator[tuple[tuple[str, int], Fact]]:
    """Yield a result's facts, each with its table and its part as the key."""
    for fact in facts_of(result):
        if fact.kind is Kind.CARRIED:
            part = fact.value.part
        else:
            part = 0 if fact.kind is Kind.GROUPED else bucket(fact.name, parts)
        yield (fact.table, part), fact


def by_kind(facts: Iterable[Fact]) -> defaultdict[Kind, list[Fact]]:
    """Return facts by their kind."""
    groups: defaultdict[Kind, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[fact.kind].append(fact)
    return groups


def result_digest(result: Result) -> int:
    """Return a digest of a step's result, as a number; a sum does not depend on the order."""
    if isinstance(result, Again):
        return int(digest("again", f"{result_digest(result.result):x}"), 16)
    if isinstance(result, ShardSummary):
        return int(digest(type(result).__name__, result.to_json()), 16)
    if isinstance(result, GroupTables):
        rows = [table.to_pylist() for table in result.by_name().values()]
        return int(digest(type(result).__name__, repr(rows)), 16)
    more = ""
    if isinstance(result, PlannedRecording):
        recording = result.probed.recording
        more = recording.content_hash + recording.measures
        more += repr(result.variants) if result.variants else ""
    return int(digest(type(result).__name__, repr(result) + more), 16)


def add_digests(numbers: Iterable[int]) -> int:
    """Return the sum of results' digests, modulo :data:`DIGEST_MODULUS`."""
    return sum(numbers) % DIGEST_MODULUS


def index_name(number: int) -> str:
    """Return the name of an index for the sum of its results' digests.

    >>> index_name(255)
    '000000000000000000000000000000ff'
    """
    return f"{number:032x}"
