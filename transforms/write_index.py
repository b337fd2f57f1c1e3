"""From everything that is known of a run to the index of its snapshot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.beam.combine import CombineEach
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.core.records import Failure
from melmill.transforms.index.facts import Again
from melmill.transforms.index.tables import (
    failed_row,
    failure_row,
    read_part,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.plan.comparing import Adopted, Attempts, Decision, Dropped, Relabelled
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.planning import PlannedRecording
from melmill.transforms.rows.summaries import RecordingRows, ShardSummary
from melmill.transforms.shards.receipts import announce_index
from melmill.transforms.shards.rewriting import Replaced, Rewritten

_MODULUS = 1 << 128


@dataclass(frozen=True, slots=True)
class Carried:
    """What the snapshot before has in one part of its index, and no fact speaks of."""

    parts: int
    part: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A recording some of whose rows lie in another shard now."""

    recording_id: str
    replaced: tuple[str, ...]
    shard: str


@dataclass(eq=False)
class WriteIndex(beam.PTransform):
    """Write the index of what a run found and made, and name it for the launcher.

    In go collections of facts: planned recordings, failures before any shard, the shards'
    summaries; in a refresh, what differs from the snapshot before, of which all that no fact
    speaks of is carried over. The index is written to ``index/DIGEST``, the digest being that of
    everything in it, so a retry writes the same files again; then the outcome in the run's
    staging folder names it. Out comes that name, once.

    Attributes
    ----------
    job
        The run.
    decision
        What the run does; with nothing to do, the index stays the snapshot's.
    """

    job: ExtractJob
    decision: beam.PCollection[Decision]

    def expand(self, found: tuple[beam.PCollection[Any], ...]) -> beam.PCollection[str]:
        """Join recordings, failures and shards by recording, part by part."""
        counted = self.decision | "TakeParts" >> beam.Map(lambda decision: decision.parts)
        parts = beam.pvalue.AsSingleton(counted)
        outcome = beam.pvalue.AsSingleton(self.decision)
        found = (*found, self.decision | "CarryParts" >> beam.FlatMap(_carry, self.job))
        index = beam.pvalue.AsSingleton(
            found
            | "SumDigests" >> CombineEach(_SumDigests())
            | "AddBase" >> beam.Map(_add_base, self.job, outcome)
        )
        # Each by itself, then joined: Flink's fusion (Beam 2.70) refuses a Flatten before them.
        keyed = tuple(
            facts | f"KeyByPart{number}" >> beam.FlatMap(key_by_part, parts)
            for number, facts in enumerate(found)
        )
        return (
            keyed
            | "JoinFacts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "WriteParts" >> beam.FlatMap(_write_announced, index, self.job)
            | "ListParts" >> beam.combiners.ToList()
            | "NameIndex" >> beam.Map(_write_outcome, index, parts, self.job, outcome)
        )


def _carry(decision: Decision, job: ExtractJob) -> Iterator[Carried]:
    if decision.todo:
        # The first part is written in any case: an index of no recordings is one, too.
        parts = decision.parts if job.base is not None else 1
        yield from (Carried(decision.parts, part) for part in range(parts))


class _SumDigests(beam.CombineFn):
    def create_accumulator(self) -> int:
        return 0

    def add_input(self, total: int, fact: Any) -> int:
        return (total + fact_digest(fact)) % _MODULUS

    def merge_accumulators(self, totals: Iterable[int]) -> int:
        return _sum_digests(totals)

    def extract_output(self, total: int) -> int:
        return total


def fact_digest(fact: Any) -> int:
    """Digest one thing known of the run, as a number that adds up in any order."""
    if isinstance(fact, Again):
        return int(digest("again", f"{fact_digest(fact.fact):x}"), 16)
    if isinstance(fact, ShardSummary):
        return int(digest(type(fact).__name__, fact.to_json()), 16)
    more = fact.probed.recording.content_hash if isinstance(fact, PlannedRecording) else ""
    return int(digest(type(fact).__name__, repr(fact) + more), 16)


def _add_base(number: int, job: ExtractJob, decision: Decision) -> int:
    """Take into account what the facts are told of."""
    if job.base is None:
        return number
    if not decision.todo:
        return int(job.base.index, 16)
    return (number + int(digest("base", job.base.index), 16)) % _MODULUS


def _sum_digests(numbers: Iterable[int]) -> int:
    return sum(numbers) % _MODULUS


def index_name(number: int) -> str:
    """Name an index by the sum of its facts' digests.

    >>> index_name(255)
    '000000000000000000000000000000ff'
    """
    return f"{number:032x}"


def key_by_part(fact: Any, parts: int) -> Iterator[tuple[tuple[str, int], Any]]:
    """Send what concerns a recording to the recording's part, and a shard to the shard's."""
    if isinstance(fact, PlannedRecording):
        yield ("recordings", bucket(fact.probed.recording.recording_id, parts)), fact
    elif isinstance(fact, ShardSummary):
        yield ("shards", bucket(fact.name, parts)), fact
        for held in fact.recordings:
            yield ("recordings", bucket(held.recording_id, parts)), (fact.name, held)
        for failure in fact.failures:
            yield ("recordings", bucket(failure.recording_id, parts)), failure
    elif isinstance(fact, Again):
        for key, said in key_by_part(fact.fact, parts):
            yield key, Again(said) if isinstance(said, PlannedRecording | Failure) else said
    elif isinstance(fact, Rewritten):
        yield ("shards", bucket(fact.summary.name, parts)), fact.summary
        for held in fact.summary.recordings:
            moved = Moved(held.recording_id, fact.replaced, fact.summary.name)
            yield ("recordings", bucket(held.recording_id, parts)), moved
    elif isinstance(fact, Replaced):
        yield ("shards", bucket(fact.shard, parts)), fact
    elif isinstance(fact, Carried):
        yield ("shards", fact.part), fact
        yield ("recordings", fact.part), fact
    else:
        yield ("recordings", bucket(fact.recording_id, parts)), fact


def _write_announced(
    group: tuple[tuple[str, int], Iterable[Any]], index: int, job: ExtractJob
) -> Iterator[str]:
    announce_index(job, index_name(index))
    yield from write_index_part(group, index, job)


def write_index_part(
    group: tuple[tuple[str, int], Iterable[Any]], index: int, job: ExtractJob
) -> Iterator[str]:
    """Write one part of the index; give the names of its files."""
    (kind, part), facts = group[0], list(group[1])
    before = _Before(job, facts)
    if kind == "shards":
        summaries = [shard_row(fact) for fact in facts if isinstance(fact, ShardSummary)]
        replaced = {fact.shard for fact in facts if isinstance(fact, Replaced)}
        tables = {"shards": (summaries, before.read("shards", replaced))}
    else:
        recordings, failures = join_recordings(facts, job.features.digest())
        dropped = {fact.recording_id for fact in facts if isinstance(fact, Dropped)}
        updated = update_recordings(facts, partial(before.find, "recordings"))
        gone = dropped | {row["recording_id"] for row in updated}
        # What is damaged, and kept, is listed among the failures by its URI.
        uris = {fact.recording_id: fact.uri for fact in facts if isinstance(fact, Relabelled)}
        renamed = [
            row | {"uri": uris[row["recording_id"]]} for row in before.find("failures", uris)
        ]
        tables = {
            "recordings": (recordings + updated, before.read("recordings", gone)),
            "failures": (failures + renamed, before.read("failures", dropped | uris.keys())),
        }
    for table, (rows, carried) in tables.items():
        if name := write_part(job.store, index_name(index), table, part, rows, carried):
            yield name


class _Before:
    """One part of the index of the snapshot before, where something of it is carried over."""

    def __init__(self, job: ExtractJob, facts: Iterable[Any]) -> None:
        self.store, self.base = job.store, job.base
        self.carried = next((fact for fact in facts if isinstance(fact, Carried)), None)

    def read(self, kind: str, without: Collection[str]) -> pa.Table | None:
        """Read the rows of a table, but for some; ``None`` where none is carried over."""
        table = self._read(kind)
        if table is None:
            return None
        return table.filter(pc.invert(_is_in(table, without)))

    def find(self, kind: str, names: Collection[str]) -> list[dict[str, Any]]:
        """Read some rows of a table."""
        table = self._read(kind) if names else None
        return [] if table is None else table.filter(_is_in(table, names)).to_pylist()

    def _read(self, kind: str) -> pa.Table | None:
        base, carried = self.base, self.carried
        if base is None or carried is None or not base.same_features:
            return None
        table = read_part(self.store, base.index, kind, carried.part % base.parts)
        if carried.parts == base.parts:
            return table
        mine = [bucket(name, carried.parts) == carried.part for name in table[0].to_pylist()]
        return table.filter(pa.array(mine, pa.bool_()))


def _is_in(table: pa.Table, names: Collection[str]) -> Any:
    return pc.is_in(table[0], value_set=pa.array(sorted(names), pa.string()))


def update_recordings(
    facts: Iterable[Any], find: Callable[[Collection[str]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Say of recordings whose rows are carried over what is another now.

    Parameters
    ----------
    facts
        All of one part.
    find
        Gives the rows that the index before has of some recordings.
    """
    relabelled: dict[str, Relabelled] = {}
    adopted: dict[str, dict[str, Any]] = {}
    moved: defaultdict[str, list[Moved]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact, Relabelled):
            relabelled[fact.recording_id] = fact
        elif isinstance(fact, Adopted):
            adopted[fact.recording_id] = fact.row
        elif isinstance(fact, Moved):
            moved[fact.recording_id].append(fact)
    known = (relabelled.keys() | moved.keys()) - adopted.keys()
    rows = [*find(known), *(dict(row) for row in adopted.values())]
    for row in rows:
        name = row["recording_id"]
        if change := relabelled.get(name):
            said = {"uri": change.uri, "split": change.split}
            row.update(said, labels_digest=change.labels_digest)
        gone = {shard for one in moved[name] for shard in one.replaced}
        kept = {shard for shard in row["shards"] if shard not in gone}
        row["shards"] = sorted(kept | {one.shard for one in moved[name]})
    return rows


def join_recordings(
    facts: Iterable[Any], features_digest: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Say of every recording what became of it.

    Returns
    -------
    recordings, failures
        Rows of the index's tables. A recording that failed more than once is one failure.

    Raises
    ------
    RuntimeError
        Shards hold another number of a recording's rows than were planned: a commit would lose
        or repeat some of them.
    """
    planned: dict[str, PlannedRecording] = {}
    failed: dict[str, Failure] = {}
    again: list[Again] = []
    tried: dict[str, int] = {}
    held: defaultdict[str, list[tuple[str, RecordingRows]]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact, PlannedRecording):
            planned[fact.probed.recording.recording_id] = fact
        elif isinstance(fact, Failure):
            failed[fact.recording_id] = min(fact, failed.get(fact.recording_id, fact), key=repr)
        elif isinstance(fact, Again):
            again.append(fact)
        elif isinstance(fact, Attempts):
            tried[fact.recording_id] = fact.attempts
        elif isinstance(fact, tuple):
            held[fact[1].recording_id].append(fact)
    _replace_by_again(again, planned, failed)
    recordings = [
        recording_row(one, held[name], features_digest)
        for name, one in planned.items()
        if name not in failed
    ]
    recordings += [
        failed_row(failure, planned.get(name), features_digest) for name, failure in failed.items()
    ]
    damages = {name: one.probed.damage for name, one in planned.items() if one.probed.damage}
    listed = {**damages, **failed}
    failures = [failure_row(one, 1 + tried.get(name, 0)) for name, one in listed.items()]
    _require_whole(planned, failed, held)
    return recordings, failures


def _replace_by_again(
    again: Iterable[Again], planned: dict[str, PlannedRecording], failed: dict[str, Failure]
) -> None:
    """Let what was found the second time stand for what was found the first time."""
    plans = {
        fact.probed.recording.recording_id: fact
        for fact in (one.fact for one in again)
        if isinstance(fact, PlannedRecording)
    }
    failures: dict[str, Failure] = {}
    for fact in (one.fact for one in again):
        if isinstance(fact, Failure):
            found = failures.get(fact.recording_id, fact)
            failures[fact.recording_id] = min(fact, found, key=repr)
    for name in plans.keys() | failures.keys():
        failed.pop(name, None)
    planned |= plans
    failed |= failures


def _require_whole(
    planned: Mapping[str, PlannedRecording],
    failed: Collection[str],
    held: Mapping[str, Iterable[tuple[str, RecordingRows]]],
) -> None:
    for name in sorted(planned.keys() | held.keys()):
        wanted = planned[name].rows if name in planned and name not in failed else 0
        rows = sum(entry.rows for _, entry in held.get(name, ()))
        if rows and rows != wanted:
            uri = planned[name].probed.recording.uri if name in planned else name
            raise RuntimeError(
                f"{uri}: its shards hold {rows} rows, and {wanted} were planned; nothing was "
                "committed"
            )


def write_index(facts: Iterable[Any], job: ExtractJob, base: Base) -> str:
    """Write an index in this process: what a few facts say of a snapshot.

    One part of it is in memory at a time. Gives the index's name, which the job announces.
    """
    every = [*facts, *(Carried(base.parts, part) for part in range(base.parts))]
    number = _sum_digests(fact_digest(fact) for fact in every)
    number = (number + int(digest("base", base.index), 16)) % _MODULUS
    groups: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
    for fact in every:
        for key, said in key_by_part(fact, base.parts):
            groups[key].append(said)
    announce_index(job, index_name(number))
    for group in sorted(groups.items()):
        list(write_index_part(group, number, replace(job, base=base)))
    return index_name(number)


def _write_outcome(
    files: list[str], index: int, parts: int, job: ExtractJob, decision: Decision
) -> str:
    name = index_name(index)
    outcome: dict[str, Any] = {"index": name, "parts": parts, "files": sorted(files)}
    outcome |= {"todo": decision.todo, "difference": decision.difference.to_json()}
    job.store.put(job.outcome, json.dumps(outcome).encode())
    return name
