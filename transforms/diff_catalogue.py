"""Compares a catalogue with a snapshot, and finds the changes that a run must make."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.combine import AddUp
from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count_passed_over, count_recordings
from melmill.transforms.catalogue.parts import catalogue_parts
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.index.comparing import read_known
from melmill.transforms.index.tables import recordings_per_part
from melmill.transforms.plan.change_records import (
    Attempts,
    Candidate,
    Change,
    Decision,
    Difference,
    Dropped,
    Offer,
    Relabelled,
    Touched,
)
from melmill.transforms.plan.finding_changes import (
    by_identity,
    decide,
    diff_part,
    pack_recordings,
    unpack_recordings,
)
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import list_blocks, look_up_versions

CANDIDATES, PROBED, FACTS, TOUCHED = "candidates", "probed", "facts", "touched"
OFFERS = "offers"


@dataclass(frozen=True, slots=True)
class Differences:
    """The outputs of :class:`DiffCatalogue`.

    Attributes
    ----------
    recordings
        Recordings whose headers must be read.
    probed
        Recordings that must be computed again although their files did not change.
    facts
        Facts for the new index.
    touched
        Rows that change or are removed.
    offers
        Rows that are removed, unless a listed file has the same content.
    decision
        One :class:`Decision`.
    """

    recordings: beam.PCollection[Recording]
    probed: beam.PCollection[ProbedRecording]
    facts: beam.PCollection[Dropped | Relabelled | Attempts]
    touched: beam.PCollection[Touched]
    offers: beam.PCollection[Offer]
    decision: beam.PCollection[Decision]


@dataclass(eq=False)
class DiffCatalogue(beam.PTransform):
    """List the catalogue, and compare it with the snapshot that the job starts from.

    The input is one element with any value. Listing and index are compared part by part, each part
    on one worker. If the job starts from no snapshot, every recording is new. Nothing is passed on
    before all parts are compared. The run fails if it would remove too many recordings
    (:class:`~melmill.transforms.core.errors.DatasetError`), or if a recording is listed twice
    (:class:`~melmill.transforms.core.errors.CatalogueError`).

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(self, start: beam.PCollection[str]) -> Differences:
        """List recordings in blocks, divide them among parts, and compare each part."""
        blocks = (
            start
            | "NameCatalogue" >> beam.Map(lambda _, catalogue: catalogue, self.job.catalogue)
            | "ListParts" >> beam.FlatMap(catalogue_parts)
            | "SpreadParts" >> beam.Reshuffle()
            | "ListRecordings" >> beam.ParDo(_List(self.job))
            # A catalogue may change: counts and comparison must use the same listing.
            | "KeepListing" >> beam.Reshuffle()
        )
        parts = (
            blocks
            | "CountListed" >> beam.Map(lambda block: block[0])
            | "SumListed" >> beam.CombineGlobally(sum)
            | "CountParts" >> beam.Map(_count_parts, self.job)
        )
        number = beam.pvalue.AsSingleton(parts)
        dealt = blocks | "DealRecordings" >> beam.FlatMap(_deal, number)
        # Also parts without listed recordings, because their known recordings were removed.
        all_parts = parts | "NameParts" >> beam.FlatMap(
            lambda parts: [(n, b"") for n in range(parts)]
        )
        compared = (
            (dealt, all_parts)
            | "JoinParts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "CompareParts"
            >> beam.ParDo(_Compare(self.job), number).with_outputs(
                CANDIDATES, PROBED, FACTS, TOUCHED, OFFERS, main="differences"
            )
        )
        decision = (
            compared["differences"]
            | "SumDifferences" >> beam.CombineGlobally(AddUp(Difference, Difference.merge))
            | "Decide" >> beam.Map(decide, number, self.job)
        )
        decided = beam.pvalue.AsSingleton(decision)
        candidates, probed, facts, touched, offers = (
            compared[tag] | f"Await{tag.title()}" >> beam.Map(_after, decided)
            for tag in (CANDIDATES, PROBED, FACTS, TOUCHED, OFFERS)
        )
        return Differences(candidates, probed, facts, touched, offers, decision)


class _List(ReportingDoFn):
    """Lists a part in blocks."""

    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def setup(self) -> None:
        super().setup()
        self.left_out, self.extensions = self.job.left_out(), set[str]()

    def process(self, part: Any) -> Iterator[tuple[int, bytes]]:
        passed_over: Counter[str] = Counter()
        for listed in list_blocks(self.job, part, self.left_out, passed_over):
            block = look_up_versions(self.job, listed)
            count_recordings("list", len(block), len(block))
            self.progress.add(listed=len(block))
            yield len(block), pack_recordings(block)
        for extension, number in passed_over.items():
            count_passed_over(extension, number, self.extensions)


def _count_parts(listed: int, job: ExtractJob) -> int:
    """Return a suitable number of parts for a catalogue: a multiple of the snapshot's number."""
    base, most = job.base.parts, 2 * recordings_per_part(job.meters)
    return base * max(1, -(-listed // (most * base)))


def _deal(block: tuple[int, bytes], parts: int) -> Iterator[tuple[int, bytes]]:
    """Yield the recordings of a block, packed by the part that they belong to."""
    dealt: defaultdict[int, list[Recording]] = defaultdict(list)
    for recording in unpack_recordings(block[1]):
        dealt[bucket(recording.recording_id, parts)].append(recording)
    for part, recordings in dealt.items():
        yield part, pack_recordings(recordings)


class _Compare(beam.DoFn):
    def __init__(self, job: ExtractJob) -> None:
        self.job = job

    def process(
        self, group: tuple[int, Iterable[bytes]], parts: int
    ) -> Iterator[Difference | beam.pvalue.TaggedOutput]:
        part, blocks = group
        listed = by_identity(
            recording for block in blocks if block for recording in unpack_recordings(block)
        )
        known, failures = read_known(self.job, part, parts)
        difference = Difference()
        number_listed, candidates = len(listed), 0
        for change in diff_part(listed, known, failures, self.job, difference):
            candidates += isinstance(change, Candidate)
            yield _tag(change)
        count_recordings("compare", number_listed, candidates)
        yield difference


def _tag(change: Change) -> beam.pvalue.TaggedOutput:
    if isinstance(change, Touched):
        return beam.pvalue.TaggedOutput(TOUCHED, change)
    if isinstance(change, Offer):
        return beam.pvalue.TaggedOutput(OFFERS, change)
    if not isinstance(change, Candidate):
        return beam.pvalue.TaggedOutput(FACTS, change)
    if change.audio is None:
        return beam.pvalue.TaggedOutput(CANDIDATES, change.recording)
    return beam.pvalue.TaggedOutput(PROBED, ProbedRecording(change.recording, change.audio))


def _after(change: Any, decision: Decision) -> Any:
    """Return the change; the side input makes Beam wait for the decision."""
    return change
