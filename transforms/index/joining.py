"""Joins facts about recordings or shards into the rows of an index's tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Failure, MeasuredPart
from melmill.transforms.index.completeness import require_whole
from melmill.transforms.index.results import (
    GROUP_TABLES,
    Carried,
    Fact,
    Held,
    Kind,
    Moved,
    by_kind,
)
from melmill.transforms.index.tables import (
    failed_row,
    failure_row,
    read_part,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.store.folders import Store

Row: TypeAlias = dict[str, Any]
Groups: TypeAlias = Mapping[Kind, list[Fact]]


def write_index_part(
    group: tuple[tuple[str, int], Iterable[Fact]], index: str, job: ExtractJob
) -> Iterator[str]:
    """Write one part of an index's tables, and yield the names of the files."""
    (table, part), facts = group[0], by_kind(group[1])
    carried = facts[Kind.CARRIED][0].value if facts[Kind.CARRIED] else None
    previous = _PreviousPart(job.store, job.base, carried)
    if table in GROUP_TABLES:
        tables = _group_rows(table, facts, previous, job)
    elif table == "shards":
        tables = _shard_rows(facts, previous)
    else:
        tables = _recording_rows(facts, previous, job)
    for name, (rows, kept) in tables.items():
        if file := write_part(job.store, index, name, part, rows, kept):
            yield file


def _group_rows(
    table: str, facts: Groups, previous: _PreviousPart, job: ExtractJob
) -> dict[str, tuple[list[Row], pa.Table | None]]:
    """Return a table about duplicates: the run's own, or the previous one if nothing is added."""
    if facts[Kind.GROUPED]:
        return {table: ([], facts[Kind.GROUPED][0].value)}
    rows = previous.read_groups(table) if job.is_matching else None
    return {table: ([], rows)}


def _shard_rows(
    facts: Groups, previous: _PreviousPart
) -> dict[str, tuple[list[Row], pa.Table | None]]:
    rows = [shard_row(fact.value) for fact in facts[Kind.WRITTEN]]
    return {"shards": (rows, previous.read("shards", without=_names(facts, Kind.REPLACED)))}


def _recording_rows(
    facts: Groups, previous: _PreviousPart, job: ExtractJob
) -> dict[str, tuple[list[Row], pa.Table | None]]:
    recordings, failures = join_recordings(facts, job.features.digest())
    dropped = _names(facts, Kind.DROPPED)
    updated = update_recordings(facts, partial(previous.find, "recordings"))
    gone = dropped | {row["recording_id"] for row in updated}
    # The failures table lists a recording that is kept in part by its URI.
    uris = {fact.name: fact.value.uri for fact in facts[Kind.RELABELLED]}
    uris |= {fact.name: fact.value["uri"] for fact in facts[Kind.ADOPTED]}
    renamed = [row | {"uri": uris[row["recording_id"]]} for row in previous.find("failures", uris)]
    kept_failures = previous.read("failures", without=dropped | uris.keys())
    return {
        "recordings": (recordings + updated, previous.read("recordings", without=gone)),
        "failures": (failures + renamed, kept_failures),
    }


def _names(facts: Groups, kind: Kind) -> set[str]:
    return {fact.name for fact in facts[kind]}


class _PreviousPart:
    """A part of the previous snapshot's index, from which rows are carried over."""

    def __init__(self, store: Store, base: Base, carried: Carried | None) -> None:
        self.store, self.base, self.carried = store, base, carried

    def read(self, table: str, without: Collection[str]) -> pa.Table | None:
        """Return a table's rows without some names; ``None`` if no row is carried over."""
        rows = self._read(table)
        if rows is None:
            return None
        rows = rows.filter(pc.invert(_is_in(rows, without)))
        if table == "recordings" and self.carried and self.carried.without:
            rows = _without_names(rows, "duplicate_of", self.carried.without)
        return rows

    def read_groups(self, table: str) -> pa.Table | None:
        """Return a table about duplicates without the recordings that are erased."""
        rows = self._read(table)
        erased = self.carried.without if self.carried else ()
        if rows is None or not erased:
            return rows
        for column in {"first", "second", "recording_id"}.intersection(rows.column_names):
            names = pa.array(erased, pa.string())
            rows = rows.filter(pc.invert(pc.is_in(rows[column], value_set=names)))
        if "duplicate_of" in rows.column_names:
            rows = _without_names(rows, "duplicate_of", erased)
        return rows

    def find(self, table: str, names: Collection[str]) -> list[Row]:
        """Return the rows with these names."""
        rows = self._read(table) if names else None
        return [] if rows is None else rows.filter(_is_in(rows, names)).to_pylist()

    def _read(self, table: str) -> pa.Table | None:
        base, carried = self.base, self.carried
        if carried is None or base.is_nothing or not base.same_features:
            return None
        rows = read_part(self.store, base.index, table, carried.part % base.parts)
        if carried.parts == base.parts or table in GROUP_TABLES:
            return rows
        is_in_part = [bucket(name, carried.parts) == carried.part for name in rows[0].to_pylist()]
        return rows.filter(pa.array(is_in_part, pa.bool_()))


def _without_names(rows: pa.Table, column: str, names: Collection[str]) -> pa.Table:
    """Return the rows with nulls instead of some values of a column."""
    is_named = pc.is_in(rows[column], value_set=pa.array(sorted(names), pa.string()))
    values = pc.if_else(is_named, pa.scalar(None, pa.string()), rows[column])
    return rows.set_column(rows.column_names.index(column), column, values)


def _is_in(table: pa.Table, names: Collection[str]) -> Any:
    return pc.is_in(table[0], value_set=pa.array(sorted(names), pa.string()))


def update_recordings(facts: Groups, find: Callable[[Collection[str]], list[Row]]) -> list[Row]:
    """Return the rows of recordings that are carried over with a change.

    Parameters
    ----------
    facts
        All facts of one part.
    find
        Function that returns the rows of the previous index for some recordings.
    """
    relabelled = {fact.name: fact.value for fact in facts[Kind.RELABELLED]}
    adopted: dict[str, Row] = {fact.name: fact.value for fact in facts[Kind.ADOPTED]}
    moves: defaultdict[str, list[Moved]] = defaultdict(list)
    for fact in facts[Kind.MOVED]:
        moves[fact.name].append(fact.value)
    known = (relabelled.keys() | moves.keys()) - adopted.keys()
    rows = [*find(known), *(dict(row) for row in adopted.values())]
    for row in rows:
        name = row["recording_id"]
        if change := relabelled.get(name):
            row.update(uri=change.uri, split=change.split, labels_digest=change.labels_digest)
            row["split_unit"] = change.split_unit or None
            row["duplicate_of"] = change.duplicate_of or None
        replaced = {shard for move in moves[name] for shard in move.replaced}
        kept = {shard for shard in row["shards"] if shard not in replaced}
        row["shards"] = sorted(kept | {move.shard for move in moves[name]})
    return rows


def join_recordings(facts: Groups, features_digest: str) -> tuple[list[Row], list[Row]]:
    """Return the rows of the recordings that were planned or failed in this run.

    Returns
    -------
    recordings, failures
        Rows of the index's tables. A recording that failed more than once gives one failure.

    Raises
    ------
    RuntimeError
        If the shards hold more or fewer rows of a recording than were planned. A commit would
        lose or repeat rows.
    """
    planned, failed = _last_results(facts[Kind.PLANNED], facts[Kind.FAILED])
    parts: defaultdict[str, list[Held]] = defaultdict(list)
    for fact in facts[Kind.HELD]:
        parts[fact.name].append(fact.value)
    measured: defaultdict[str, list[MeasuredPart]] = defaultdict(list)
    for fact in facts[Kind.MEASURED]:
        measured[fact.name].append(fact.value)
    recordings = [
        recording_row(plan, parts[name], features_digest, measured[name])
        for name, plan in planned.items()
        if name not in failed
    ]
    recordings += [
        failed_row(failure, planned.get(name), features_digest) for name, failure in failed.items()
    ]
    damages = {name: plan.probed.damage for name, plan in planned.items() if plan.probed.damage}
    attempts = {fact.name: fact.value for fact in facts[Kind.TRIED]}
    failures = [
        failure_row(failure, 1 + attempts.get(name, 0))
        for name, failure in {**damages, **failed}.items()
    ]
    require_whole(planned, failed, parts)
    return recordings, failures


def _last_results(
    plans: Iterable[Fact], failures: Iterable[Fact]
) -> tuple[dict[str, PlannedRecording], dict[str, Failure]]:
    """Return the plan and the failure of each recording.

    Results of the second time replace results of the first time.
    """
    planned: dict[str, PlannedRecording] = {}
    failed: dict[str, Failure] = {}
    again: set[str] = set()
    for fact in sorted((*plans, *failures), key=lambda fact: fact.again):
        if fact.again and fact.name not in again:
            again.add(fact.name)
            failed.pop(fact.name, None)
        if fact.kind is Kind.PLANNED:
            planned[fact.name] = fact.value
        else:
            failed[fact.name] = min(fact.value, failed.get(fact.name, fact.value), key=repr)
    return planned, failed
