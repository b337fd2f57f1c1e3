"""Finds the duplicates among a run's recordings, and decides which of them have rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from melmill.transforms.beam.metrics import count_recordings
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.duplicates.deciding import decide_groups, known_groups
from melmill.transforms.duplicates.grouping import FoundMatch, MatchedRecording, read_matched
from melmill.transforms.duplicates.match_job import (
    IndexedDataset,
    MatchJob,
    count_words,
    is_short,
    place_of,
)
from melmill.transforms.index.results import GroupTables
from melmill.transforms.index.tables import RECORDINGS, recording_row
from melmill.transforms.match_fingerprints import MatchFingerprints
from melmill.transforms.plan.change_records import Adopted, Decision, Dropped, Relabelled
from melmill.transforms.plan.group_decisions import GroupDecisions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording

_TABLES = "tables"


@dataclass(frozen=True, slots=True, order=True)
class _Staged:
    """Readings that were staged: a part's number, its file, its seconds and short recordings."""

    number: int
    name: str
    seconds: float
    short: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The outputs of :class:`GroupDuplicates`.

    Attributes
    ----------
    recordings
        Recordings in the splits of their groups, without chunks if another one is kept.
    decisions
        One :class:`~melmill.transforms.plan.group_decisions.GroupDecisions`.
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
        matches = searches | "MatchFingerprints" >> MatchFingerprints(job.progress)
        matched = (
            matches
            | "KeyByPlace" >> beam.FlatMap(_key_by_place)
            | "GroupByPlace" >> beam.GroupByKey()
            | "ReadMatched" >> beam.FlatMap(_read, beam.pvalue.AsSingleton(searches))
        )
        changes = facts | "TakeChanges" >> beam.FlatMap(_take_change)
        collected = map(beam.pvalue.AsIter, (matches, matched, changes))
        decided = searches | "DecideGroups" >> beam.FlatMap(_decide, job, *collected).with_outputs(
            _TABLES, main="decisions"
        )
        applied = recordings | "ApplyGroups" >> beam.Map(
            apply_groups, beam.pvalue.AsSingleton(decided["decisions"])
        )
        return Groups(applied, decided["decisions"], decided[_TABLES])


def apply_groups(planned: PlannedRecording, groups: GroupDecisions) -> PlannedRecording:
    """Count a recording, and return it as the decisions about its group want it."""
    count_recordings("group")
    return groups.applied(planned)


def _key_by_part(
    planned: PlannedRecording, decision: Decision
) -> Iterator[tuple[int, PlannedRecording]]:
    if planned.chunks and planned.probed.recording.measures:
        yield bucket(planned.probed.recording.recording_id, decision.parts), planned


def _stage(group: tuple[int, Iterable[PlannedRecording]], job: ExtractJob) -> _Staged:
    """Write the readings of a part, and return what was written.

    The name depends on the content: jobs of one template may run at the same time.
    """
    part, recordings = group
    rows = [_staged_row(planned) for planned in recordings]
    table = pa.Table.from_pylist(rows, RECORDINGS).sort_by("recording_id")
    with job.store.scratch() as path:
        pq.write_table(table, path, compression="zstd")
        name = f"{job.staging}/readings/{digest(path.read_bytes())}.parquet"
        job.store.publish(path, name)
    seconds = [row["seconds"] for row in rows]
    return _Staged(part, name, sum(seconds), sum(map(is_short, seconds)))


def _staged_row(planned: PlannedRecording) -> dict[str, Any]:
    status = "partial" if planned.probed.damage else "ok"
    return recording_row(planned, (), "") | {"status": status}


def _describe(staged: list[_Staged], decision: Decision, job: ExtractJob) -> MatchJob:
    """Return the search: the snapshot's recordings, if they are carried over, and the new ones."""
    files = {part.number: part.name for part in sorted(staged)}
    new = IndexedDataset(job.store, "", tuple(files), tuple(files.values()))
    words = count_words(sum(part.seconds for part in staged))
    short = sum(part.short for part in staged)
    if not (job.matches_base and files):
        # The snapshot is the first dataset: its recordings have even numbers.
        return MatchJob((IndexedDataset(job.store, "", ()), new), words, short)
    difference, base = decision.difference, job.base
    # The known recordings are about as long as the new ones.
    times = 1 + difference.counts["known"] / max(1, difference.computed)
    known = IndexedDataset(job.store, base.index, tuple(range(base.parts)))
    return MatchJob((known, new), round(times * words), round(times * short), is_known=True)


def _key_by_place(matches: list[FoundMatch]) -> Iterator[tuple[int, int]]:
    for number in {number for match in matches for number in match[:2]}:
        yield place_of(number), number


def _read(
    group: tuple[int, Iterable[int]], search: MatchJob
) -> Iterator[tuple[int, MatchedRecording]]:
    yield from read_matched(search, group[0], set(group[1]))


def _take_change(fact: Any) -> Iterator[Dropped | Adopted | Relabelled]:
    if isinstance(fact, Dropped | Adopted | Relabelled):
        yield fact


def _decide(
    _: MatchJob,
    job: ExtractJob,
    matches: Iterable[list[FoundMatch]],
    matched: Iterable[tuple[int, MatchedRecording]],
    changes: Iterable[Dropped | Adopted | Relabelled],
) -> Iterator[Any]:
    """Yield the decisions and the tables; leave out what the snapshot has and the run has not."""
    recordings = dict(matched)
    names = {recording.recording_id for recording in recordings.values()}
    known = known_groups(job)
    names |= set(known.matched_recordings["recording_id"].to_pylist())
    changed: dict[str, Relabelled | None] = {
        change.recording_id: change if isinstance(change, Relabelled) else None
        for change in changes
        if change.recording_id in names
    }
    found = (match for block in matches for match in block)
    decisions, tables = decide_groups(found, recordings, known, changed, job)
    yield decisions
    yield beam.pvalue.TaggedOutput(_TABLES, tables)
