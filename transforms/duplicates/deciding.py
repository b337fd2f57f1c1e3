"""Decides, for all groups of duplicates, which recording is kept and in which split they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from melmill.transforms.duplicates.grouping import (
    TICKS_PER_SECOND,
    FoundMatch,
    Kind,
    MatchedRecording,
    best_first,
    groups_of,
    one_of_each_pair,
    with_lengths,
)
from melmill.transforms.index.results import GROUP_TABLES, GroupTables
from melmill.transforms.index.tables import MATCHED_RECORDINGS, MATCHES, SCHEMAS, read_part
from melmill.transforms.plan.change_records import Relabelled
from melmill.transforms.plan.group_decisions import Dedupe, GroupDecisions, leaves_out
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store

#: Statuses of the snapshot's recordings that take part.
_TAKING_PART = ("ok", "partial", "duplicate")
#: Stands for no change.
_SAME = Relabelled("", "", "", "")


@dataclass(frozen=True, slots=True, order=True)
class _Assignment:
    """The split of a unit, the version since when, and its rank: the smallest takes precedence."""

    rank: int
    since: int
    unit: str
    split: str


def read_groups(store: Store, index: str) -> GroupTables:
    """Return the tables about duplicates in an index; they are empty if it has none."""
    return GroupTables(*(read_part(store, index, name, 0) for name in GROUP_TABLES))


def copies_of(store: Store, index: str, names: Collection[str]) -> list[str]:
    """Return the URIs of recordings that are in a group with some recordings, but not among them.

    The result is empty if the index has no matches.
    """
    tables = read_groups(store, index)
    pairs = (
        (row["first"], row["second"])
        for row in tables.matches.to_pylist()
        if row["kind"] != "contained"
    )
    uris = {row["recording_id"]: row["uri"] for row in tables.matched_recordings.to_pylist()}
    wanted = set(names)
    others = (set(group) - wanted for group in groups_of(pairs) if wanted & set(group))
    return sorted(uris[name] for group in others for name in group)


def known_groups(job: ExtractJob) -> GroupTables:
    """Return what is still true of the snapshot's tables about duplicates.

    Matches are known only if new recordings are matched with those of the snapshot, and splits of
    units only if the rule of the splits is the same.
    """
    none = GroupTables(*(SCHEMAS[name].empty_table() for name in GROUP_TABLES))
    base = job.base
    if base.is_nothing:
        return none
    known = read_groups(job.store, base.index)
    return GroupTables(
        known.matches if job.matches_base else none.matches,
        known.matched_recordings if job.matches_base else none.matched_recordings,
        known.split_units if base.same_split else none.split_units,
    )


def decide_groups(
    matches: Iterable[FoundMatch],
    recordings: Mapping[int, MatchedRecording],
    known: GroupTables,
    changes: Mapping[str, Relabelled | None],
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
        Tables of the snapshot.
    changes
        Changes of the snapshot's recordings by id; ``None`` for those that are removed or may have
        another sound now.
    job
        Job of the run.
    """
    present = {
        number: _updated(recording, changes)
        for number, recording in recordings.items()
        if _is_present(recording, changes)
    }
    known_members = {
        member.recording_id: _updated(member, changes)
        for member in _known_members(known)
        if _is_present(member, changes)
    }
    members = {member.recording_id: member for member in present.values()} | known_members
    rows = {
        (row["first"], row["second"]): row
        for row in known.matches.to_pylist()
        if {row["first"], row["second"]} <= known_members.keys()
    }
    for match in one_of_each_pair(matches):
        if match[0] in present and match[1] in present:
            row = _found_row(match, present)
            rows[row["first"], row["second"]] = row
    rows = _with_exact(rows, members)
    pairs = [pair for pair, row in rows.items() if row["kind"] != "contained"]
    groups = [[members[name] for name in group] for group in groups_of(pairs)]
    duplicate_of = dict(_duplicates(groups, _with_rows(known, members, job), job.dedupe))
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


def _with_rows(
    known: GroupTables, members: Mapping[str, MatchedRecording], job: ExtractJob
) -> set[str]:
    """Return the ids of recordings that have rows in the snapshot, also if they changed since."""
    rows = known.matched_recordings.select(["recording_id", "duplicate_of"]).to_pylist()
    is_left_out = {row["recording_id"]: bool(row["duplicate_of"]) for row in rows}
    if not leaves_out(job.base.dedupe):
        is_left_out = dict.fromkeys(is_left_out, False)
    of_snapshot = (name for name, member in members.items() if member.dataset == 0)
    return {name for name in (*is_left_out, *of_snapshot) if not is_left_out.get(name)}


def _with_exact(
    rows: Mapping[tuple[str, str], dict[str, Any]], members: Mapping[str, MatchedRecording]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the matches with those of exact copies, which have no other match.

    All exact copies of a sound match the first one. They are found anew each time, because the
    first one may be gone.
    """
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(members):
        by_digest[members[name].digest or name].append(name)
    exact = {
        (first, name): _row(first, name, "exact", 0.0, members[first].seconds, 0.0)
        for first, *others in by_digest.values()
        for name in others
    }
    digests = {name: digest for digest, names in by_digest.items() for name in names}
    other = {pair: row for pair, row in rows.items() if digests[pair[0]] != digests[pair[1]]}
    return {**other, **exact}


def _row(first: str, second: str, kind: Kind, *numbers: float) -> dict[str, Any]:
    return dict(zip(MATCHES.names, (first, second, kind, *numbers), strict=True))


def _is_present(member: MatchedRecording, changes: Mapping[str, Relabelled | None]) -> bool:
    """Return whether a recording is new, or is in the snapshot and did not change its sound."""
    if member.dataset == 1:
        return True
    return member.status in _TAKING_PART and changes.get(member.recording_id, _SAME) is not None


def _updated(
    member: MatchedRecording, changes: Mapping[str, Relabelled | None]
) -> MatchedRecording:
    """Return a recording with the columns that the catalogue changed."""
    change = changes.get(member.recording_id) if member.dataset == 0 else None
    if change is None:
        return member
    unit = change.split_unit or None
    return replace(member, uri=change.uri, split=change.split, split_unit=unit)


def _found_row(match: FoundMatch, recordings: Mapping[int, MatchedRecording]) -> dict[str, Any]:
    """Return a match as a row of the index, in the order of the recordings' ids."""
    first, second, kind, offset, overlap, error = with_lengths(match, recordings)
    names = recordings[first].recording_id, recordings[second].recording_id
    if kind != "contained" and names[1] < names[0]:
        names, offset = (names[1], names[0]), -offset
    seconds = offset / TICKS_PER_SECOND, overlap / TICKS_PER_SECOND
    return _row(*names, kind, *seconds, error)


def _duplicates(
    groups: Iterable[Sequence[MatchedRecording]], with_rows: Collection[str], dedupe: Dedupe
) -> Iterator[tuple[str, str]]:
    """Yield the id of each recording that is a duplicate, and of the one that is kept."""
    if dedupe == "off":
        return
    for group in groups:
        ordered = best_first(group)
        if dedupe == "drop":
            ordered.sort(key=lambda member: member.recording_id not in with_rows)
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
            units[unit] = min(units.get(unit, assignment), assignment)
            pairs.append((group[0].split_unit or "", unit))
    for together in groups_of(pairs):
        first = min(units[unit] for unit in together)
        for unit in together:
            yield {"unit": unit, "split": first.split, "since": first.since}


def _member_row(
    member: MatchedRecording, splits: Mapping[str, str], duplicate_of: Mapping[str, str]
) -> dict[str, Any]:
    row = {name: getattr(member, name, None) for name in MATCHED_RECORDINGS.names}
    row["split"] = splits.get(member.split_unit or "", member.split)
    row["duplicate_of"] = duplicate_of.get(member.recording_id)
    return row
