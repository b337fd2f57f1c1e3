"""Decides, for all groups of duplicates, which recording is kept and in which split they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.duplicates.grouping import (
    FoundMatch,
    MatchedRecording,
    best_first,
    groups_of,
    with_lengths,
    without_doubles,
)
from melmill.transforms.index.results import GROUP_TABLES, GroupTables
from melmill.transforms.index.tables import MATCHED_RECORDINGS, SCHEMAS, read_part
from melmill.transforms.measures.acoustic import WORDS_PER_SECOND
from melmill.transforms.plan.duplicate_groups import Dedupe, GroupDecisions, leaves_out
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class _Assignment:
    """The split of a unit, the version since when, and its rank: the smallest takes precedence."""

    rank: int
    since: int
    unit: str
    split: str


def read_groups(store: Store, index: str) -> GroupTables:
    """Return the tables about duplicates in an index; they are empty if it has none."""
    return GroupTables(*(read_part(store, index, name, 0) for name in GROUP_TABLES))


def known_groups(job: ExtractJob) -> GroupTables:
    """Return what is still true of the snapshot's tables about duplicates.

    If all recordings are matched anew, these are the splits of units.
    """
    none = GroupTables(*(SCHEMAS[name].empty_table() for name in GROUP_TABLES))
    base = job.base
    if base.is_nothing or not base.same_split:
        return none
    known = read_groups(job.store, base.index)
    return known if job.matches_base else replace(none, split_units=known.split_units)


def without(tables: GroupTables, erased: Collection[str]) -> GroupTables:
    """Return the tables without some recordings, and without their matches."""
    names = pa.array(sorted(erased), pa.string())

    def is_kept(table: pa.Table, column: str) -> Any:
        return pc.invert(pc.is_in(table[column], value_set=names))

    matches, recordings = tables.matches, tables.matched_recordings
    matches = matches.filter(is_kept(matches, "first"))
    return replace(
        tables,
        matches=matches.filter(is_kept(matches, "second")),
        matched_recordings=recordings.filter(is_kept(recordings, "recording_id")),
    )


def decide_groups(
    matches: Iterable[FoundMatch],
    recordings: Mapping[int, MatchedRecording],
    known: GroupTables,
    job: ExtractJob,
) -> tuple[GroupDecisions, GroupTables]:
    """Return the decisions about all groups, and the new index's tables about them.

    The result does not depend on the order of matches.

    Parameters
    ----------
    matches
        Matches that the run found.
    recordings
        Recordings of these matches, by number. Those of the snapshot have the dataset 0.
    known
        Tables of the snapshot, without recordings that changed or are removed.
    job
        Job of the run.
    """
    members = {member.recording_id: member for member in recordings.values()}
    members |= {member.recording_id: member for member in _known_members(known)}
    rows = {(row["first"], row["second"]): row for row in known.matches.to_pylist()}
    for row in _rows(matches, recordings):
        rows[row["first"], row["second"]] = row
    pairs = [pair for pair, row in rows.items() if row["kind"] != "contained"]
    groups = [[members[name] for name in group] for group in groups_of(pairs)]
    left_out = set(_left_out(known)) if leaves_out(job.base.dedupe) else set[str]()
    duplicate_of = dict(_duplicates(groups, left_out, job.dedupe))
    assigned = {row["unit"]: row for row in known.split_units.to_pylist()}
    if job.split.keep_together:
        version = job.base.version + 1
        assigned |= {row["unit"]: row for row in _assign(groups, assigned, version)}
    splits = {unit: row["split"] for unit, row in assigned.items()}
    matched = {name for pair in rows for name in pair}
    tables = (
        [rows[pair] for pair in sorted(rows)],
        [_member_row(members[name], splits, duplicate_of) for name in sorted(matched)],
        [assigned[unit] for unit in sorted(assigned)],
    )
    arrow = (
        pa.Table.from_pylist(table, SCHEMAS[name])
        for name, table in zip(GROUP_TABLES, tables, strict=True)
    )
    return GroupDecisions(job.dedupe, duplicate_of, splits), GroupTables(*arrow)


def _known_members(known: GroupTables) -> Iterator[MatchedRecording]:
    columns = [name for name in MATCHED_RECORDINGS.names if name != "duplicate_of"]
    for row in known.matched_recordings.select(columns).to_pylist():
        yield MatchedRecording(dataset=0, **row)


def _left_out(known: GroupTables) -> Iterator[str]:
    for row in known.matched_recordings.select(["recording_id", "duplicate_of"]).to_pylist():
        if row["duplicate_of"]:
            yield row["recording_id"]


def _rows(
    matches: Iterable[FoundMatch], recordings: Mapping[int, MatchedRecording]
) -> Iterator[dict[str, Any]]:
    """Yield matches as rows of the index, in the order of the recordings' ids."""
    for match in without_doubles(sorted(matches)):
        first, second, kind, offset, overlap, error = with_lengths(match, recordings)
        names = recordings[first].recording_id, recordings[second].recording_id
        compared = overlap / WORDS_PER_SECOND
        if kind == "exact":
            compared = recordings[first].seconds
        if kind != "contained" and names[1] < names[0]:
            names, offset = (names[1], names[0]), -offset
        yield {
            **{"first": names[0], "second": names[1], "kind": kind},
            **{"offset_seconds": offset / WORDS_PER_SECOND, "overlap_seconds": compared},
            "error": error,
        }


def _duplicates(
    groups: Iterable[Sequence[MatchedRecording]], left_out: Collection[str], dedupe: Dedupe
) -> Iterator[tuple[str, str]]:
    """Yield the id of each recording that is a duplicate, and of the one that is kept."""
    if dedupe == "off":
        return
    for group in groups:
        ordered = best_first(group)
        if dedupe == "drop":
            has_rows = [m for m in ordered if m.dataset == 0 and m.recording_id not in left_out]
            ordered = [*has_rows, *ordered]
        kept = ordered[0].recording_id
        yield from ((m.recording_id, kept) for m in group if m.recording_id != kept)


def _assign(
    groups: Iterable[Sequence[MatchedRecording]],
    assigned: Mapping[str, Mapping[str, Any]],
    version: int,
) -> Iterator[dict[str, Any]]:
    """Yield the split of each unit in a group.

    Units with recordings of one group are in one split: that of the oldest group, else that of a
    recording which the snapshot has, else that of the first unit.
    """
    units: dict[str, _Assignment] = {}
    pairs: list[tuple[str, str]] = []
    for group in groups:
        for member in group:
            unit = member.split_unit or ""
            known = assigned.get(unit)
            rank = 0 if known else 1 + member.dataset
            since, split = (known["since"], known["split"]) if known else (version, member.split)
            assignment = _Assignment(rank, since, unit, split)
            units[unit] = min(units.get(unit, assignment), assignment, key=_precedence)
            pairs.append((group[0].split_unit or "", unit))
    for together in groups_of(pairs):
        first = min((units[unit] for unit in together), key=_precedence)
        for unit in together:
            yield {"unit": unit, "split": first.split, "since": first.since}


def _precedence(assignment: _Assignment) -> tuple[int, int, str]:
    return assignment.rank, assignment.since, assignment.unit


def _member_row(
    member: MatchedRecording, splits: Mapping[str, str], duplicate_of: Mapping[str, str]
) -> dict[str, Any]:
    row = {name: getattr(member, name, None) for name in MATCHED_RECORDINGS.names}
    row["split"] = splits.get(member.split_unit or "", member.split)
    row["duplicate_of"] = duplicate_of.get(member.recording_id)
    return row
