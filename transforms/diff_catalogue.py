"""Compares a catalogue with a snapshot, and finds the changes that a run must make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.combine import AddUp
from melmill.transforms.beam.metrics import count_recordings
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.index.comparing import read_known
from melmill.transforms.list_catalogue import Part
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
from melmill.transforms.plan.finding_changes import decide, diff_part
from melmill.transforms.plan.group_decisions import GroupDecisions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import by_identity, unpack_recordings

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
    """Compare the listed catalogue with the snapshot that the job starts from.

    The inputs are the parts of the listing and their number
    (:class:`~melmill.transforms.list_catalogue.ListCatalogue`). Each part is compared on one
    worker. If the job starts from no snapshot, every recording is new. Nothing is passed on
    before all parts are compared. The run fails if it would remove too many recordings
    (:class:`~melmill.transforms.core.errors.DatasetError`), or if a recording is listed twice
    (:class:`~melmill.transforms.core.errors.CatalogueError`).

    Attributes
    ----------
    job
        Job of the run.
    groups
        Decisions about groups of duplicates, if this is the second comparison; see
        :func:`~melmill.transforms.plan.finding_changes.diff_part`. Of the recordings to compute,
        only those are passed on that the first comparison did not find.
    """

    job: ExtractJob
    groups: beam.PCollection[GroupDecisions] | None = None

    def expand(self, listed: tuple[beam.PCollection[Part], beam.PCollection[int]]) -> Differences:
        """Compare each part, add up the differences, and decide."""
        parts, counted = listed
        number = beam.pvalue.AsSingleton(counted)
        groups = [] if self.groups is None else [beam.pvalue.AsSingleton(self.groups)]
        compared = parts | "CompareParts" >> beam.ParDo(
            _Compare(self.job), number, *groups
        ).with_outputs(CANDIDATES, PROBED, FACTS, TOUCHED, OFFERS, main="differences")
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


class _Compare(beam.DoFn):
    def __init__(self, job: ExtractJob) -> None:
        self.job = job

    def process(
        self, group: Part, parts: int, groups: GroupDecisions | None = None
    ) -> Iterator[Difference | beam.pvalue.TaggedOutput]:
        part, blocks = group
        listed = by_identity(
            recording for block in blocks if block for recording in unpack_recordings(block)
        )
        known, failures = read_known(self.job, part, parts)
        difference = Difference()
        number_listed, candidates = len(listed), 0
        for change in diff_part(listed, known, failures, self.job, difference, groups):
            if isinstance(change, Candidate):
                if groups is not None and not change.by_groups:
                    continue
                candidates += 1
            yield _tag(change)
        count_recordings("compare", 0 if groups else number_listed, candidates)
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
