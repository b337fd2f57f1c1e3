"""Finds the duplicates among a run's recordings, and decides which of them have rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from melmill.transforms.core.naming import bucket
from melmill.transforms.duplicates.deciding import decide_groups, known_groups, without
from melmill.transforms.duplicates.grouping import FoundMatch, MatchedRecording, read_matched
from melmill.transforms.duplicates.prints import IndexedDataset, MatchJob, place_of, staged_name
from melmill.transforms.index.results import GroupTables
from melmill.transforms.index.tables import RECORDINGS, recording_row
from melmill.transforms.match_recordings import MatchRecordings
from melmill.transforms.measures.acoustic import WORDS_PER_SECOND
from melmill.transforms.plan.change_records import Decision, Dropped
from melmill.transforms.plan.duplicate_groups import GroupDecisions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording

_TABLES = "tables"
#: Statuses of the snapshot's recordings that take part.
_WITH_FINGERPRINTS = ("ok", "partial", "duplicate")


@dataclass(frozen=True, slots=True)
class Groups:
    """The outputs of :class:`GroupDuplicates`.

    Attributes
    ----------
    recordings
        Recordings in the splits of their groups, without chunks if another one is kept.
    decisions
        One :class:`~melmill.transforms.plan.duplicate_groups.GroupDecisions`.
    tables
        One :class:`~melmill.transforms.index.results.GroupTables`, for the index.
    """

    recordings: beam.PCollection[PlannedRecording]
    decisions: beam.PCollection[GroupDecisions]
    tables: beam.PCollection[GroupTables]


@dataclass(eq=False)
class GroupDuplicates(beam.PTransform):
    """Match new recordings with each other and with those of the snapshot, and decide about groups.

    The inputs are the recordings with their readings, the facts and the decision of the first
    comparison. The readings of recordings with chunks are staged as Parquet files, because workers
    read them several times. One worker holds all matches: they are few. A retry gives the same
    result.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self,
        found: tuple[
            beam.PCollection[PlannedRecording], beam.PCollection[Any], beam.PCollection[Decision]
        ],
    ) -> Groups:
        """Stage readings, match them, and decide about all groups at once."""
        job, (recordings, facts, decision) = self.job, found
        parts = beam.pvalue.AsSingleton(decision)
        searches = (
            recordings
            | "KeyByPart" >> beam.FlatMap(_key_by_part, parts)
            | "GroupByPart" >> beam.GroupByKey()
            | "StageReadings" >> beam.Map(_stage, job)
            | "ListStaged" >> beam.combiners.ToList()
            | "DescribeSearch" >> beam.Map(_describe, parts, job)
        )
        matches = searches | "MatchRecordings" >> MatchRecordings(job.progress)
        matched = (
            matches
            | "KeyByPlace" >> beam.FlatMap(_key_by_place)
            | "GroupByPlace" >> beam.GroupByKey()
            | "ReadMatched" >> beam.FlatMap(_read, beam.pvalue.AsSingleton(searches))
        )
        gone = facts | "NameGone" >> beam.FlatMap(_name_gone)
        collected = map(beam.pvalue.AsIter, (matches, matched, gone))
        decided = searches | "DecideGroups" >> beam.FlatMap(_decide, job, *collected).with_outputs(
            _TABLES, main="decisions"
        )
        applied = recordings | "ApplyGroups" >> beam.Map(
            apply_groups, beam.pvalue.AsSingleton(decided["decisions"])
        )
        return Groups(applied, decided["decisions"], decided[_TABLES])


def apply_groups(planned: PlannedRecording, groups: GroupDecisions) -> PlannedRecording:
    """Return a recording as the decisions about its group want it."""
    return groups.applied(planned)


def _key_by_part(
    planned: PlannedRecording, decision: Decision
) -> Iterator[tuple[int, PlannedRecording]]:
    if planned.chunks and planned.probed.recording.measures:
        yield bucket(planned.probed.recording.recording_id, decision.parts), planned


def _stage(group: tuple[int, Iterable[PlannedRecording]], job: ExtractJob) -> tuple[int, float]:
    """Write the readings of a part; return its number, and the length of its recordings."""
    part, recordings = group
    rows = [_staged_row(planned) for planned in recordings]
    table = pa.Table.from_pylist(rows, RECORDINGS).sort_by("recording_id")
    with job.store.scratch() as path:
        pq.write_table(table, path, compression="zstd")
        job.store.publish(path, staged_name(job.readings, part))
    return part, sum(row["seconds"] for row in rows)


def _staged_row(planned: PlannedRecording) -> dict[str, Any]:
    status = "partial" if planned.probed.damage else "ok"
    return recording_row(planned, (), "") | {"status": status}


def _describe(staged: list[tuple[int, float]], decision: Decision, job: ExtractJob) -> MatchJob:
    """Return the search: the snapshot's recordings, if they are carried over, and the new ones."""
    parts = tuple(sorted(part for part, _ in staged))
    new = IndexedDataset(job.store, "", parts, job.readings)
    words = round(sum(seconds for _, seconds in staged) * WORDS_PER_SECOND)
    if not (job.matches_base and parts):
        # The snapshot is the first dataset: its recordings have even numbers.
        return MatchJob((IndexedDataset(job.store, "", ()), new), words)
    difference, base = decision.difference, job.base
    words = round(words * (1 + difference.counts["known"] / max(1, difference.computed)))
    known = IndexedDataset(job.store, base.index, tuple(range(base.parts)))
    return MatchJob((known, new), words, is_known=True)


def _key_by_place(matches: list[FoundMatch]) -> Iterator[tuple[int, int]]:
    for number in {number for match in matches for number in match[:2]}:
        yield place_of(number), number


def _read(
    group: tuple[int, Iterable[int]], search: MatchJob
) -> Iterator[tuple[int, MatchedRecording]]:
    yield from read_matched(search, group[0], set(group[1]))


def _name_gone(fact: Any) -> Iterator[str]:
    if isinstance(fact, Dropped):
        yield fact.recording_id


def _decide(
    _: MatchJob,
    job: ExtractJob,
    matches: Iterable[list[FoundMatch]],
    matched: Iterable[tuple[int, MatchedRecording]],
    gone: Iterable[str],
) -> Iterator[Any]:
    """Yield the decisions and the tables; leave out what the snapshot has and the run has not."""
    recordings = dict(matched)
    names = {recording.recording_id for recording in recordings.values()}
    known = known_groups(job)
    names |= set(known.matched_recordings["recording_id"].to_pylist())
    removed = {name for name in gone if name in names}
    valid = {
        number: recording
        for number, recording in recordings.items()
        if recording.dataset == 1
        or (recording.recording_id not in removed and recording.status in _WITH_FINGERPRINTS)
    }
    kept = (m for found in matches for m in found if m[0] in valid and m[1] in valid)
    decisions, tables = decide_groups(kept, valid, without(known, removed), job)
    yield decisions
    yield beam.pvalue.TaggedOutput(_TABLES, tables)
