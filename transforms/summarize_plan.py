"""Adds up a plan, without carrying it out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from functools import partial

import apache_beam as beam

from melmill.transforms.beam.combine import AddUp, CombineEach
from melmill.transforms.catalogue.left_out import EXCLUDED
from melmill.transforms.catalogue.licenses import OTHER_LICENSE
from melmill.transforms.core.records import Failure
from melmill.transforms.plan.change_records import Decision
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, row_bytes
from melmill.transforms.plan.recordings import PlannedRecording

PlanFact = PlannedRecording | Failure | ShardPlan | Decision

_EXAMPLES = 3


def _zeros() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(slots=True)
class PlanSummary:
    """The totals of a plan; the totals of workers can be added up.

    Attributes
    ----------
    recordings
        Number of recordings by status: ``planned``, ``failed``, ``skipped``; ``excluded`` and
        ``other_license``: left out by ``catalogue.exclude`` and ``require_license``.
    seconds, chunks
        Total length and number of chunks of the recordings with rows.
    codec_seconds
        Total length by codec.
    rows, shards, split_recordings
        Number of rows, shards, and recordings with rows, by split.
    parquet_bytes
        Estimated size of the Parquet shards.
    failures
        Number of failures by cause.
    examples
        Some failures of each cause, as ``(uri, message)``.
    """

    recordings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    chunks: int = 0
    codec_seconds: defaultdict[str, float] = field(default_factory=_zeros)
    rows: Counter[str] = field(default_factory=Counter)
    shards: Counter[str] = field(default_factory=Counter)
    split_recordings: Counter[str] = field(default_factory=Counter)
    parquet_bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, fact: PlanFact, row_size: int) -> None:
        """Add a recording, a failure, a shard or the decision to the totals."""
        if isinstance(fact, Decision):
            counts = fact.difference.counts
            self.recordings.update({kind: counts[kind] for kind in (EXCLUDED, OTHER_LICENSE)})
        elif isinstance(fact, Failure):
            self.recordings["failed"] += 1
            self.failures[fact.cause] += 1
            self._add_examples(fact.cause, [(fact.uri, fact.message)])
        elif isinstance(fact, ShardPlan):
            self.shards[fact.split] += 1
        elif not fact.rows:
            self.recordings["skipped"] += 1
        else:
            self._add_recording(fact, row_size)

    def _add_recording(self, planned: PlannedRecording, row_size: int) -> None:
        probed = planned.probed
        self.recordings["planned"] += 1
        self.seconds += probed.seconds
        cuts = list(planned.cuts())  # each is decoded on its own
        self.codec_seconds[probed.audio.codec] += probed.seconds * len(cuts)
        self.chunks += sum(cut.chunks for cut in cuts)
        self.rows[planned.split] += planned.rows
        self.split_recordings[planned.split] += 1
        self.parquet_bytes += planned.rows * row_size

    def merge(self, other: PlanSummary) -> None:
        """Add the totals of another worker."""
        for name in ("recordings", "rows", "shards", "split_recordings", "failures"):
            getattr(self, name).update(getattr(other, name))
        for codec, seconds in other.codec_seconds.items():
            self.codec_seconds[codec] += seconds
        self.seconds += other.seconds
        self.chunks += other.chunks
        self.parquet_bytes += other.parquet_bytes
        for cause, examples in other.examples.items():
            self._add_examples(cause, examples)

    def _add_examples(self, cause: str, examples: list[tuple[str, str]]) -> None:
        self.examples[cause] = sorted([*self.examples.get(cause, []), *examples])[:_EXAMPLES]


@dataclass(eq=False)
class SummarizePlan(beam.PTransform):
    """Add up planned recordings, failures and shard plans into one file, ``plan.json``.

    The decision contains the number of recordings that are left out. The output is the file's
    name in the run's staging folder, as one element.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self,
        found: tuple[
            beam.PCollection[PlannedRecording],
            beam.PCollection[Failure],
            beam.PCollection[ShardPlan],
            beam.PCollection[Decision],
        ],
    ) -> beam.PCollection[str]:
        """Add up on every worker, then merge the totals."""
        add = partial(PlanSummary.add, row_size=row_bytes(self.job.features))
        return (
            found
            | "AddUp" >> CombineEach(AddUp(PlanSummary, add))
            | "WritePlan" >> beam.Map(_write_summary, self.job)
        )


def _write_summary(summary: PlanSummary, job: ExtractJob) -> str:
    name = f"{job.staging}/plan.json"
    values = {item.name: getattr(summary, item.name) for item in fields(summary)}
    values["recordings"] = +summary.recordings
    job.store.put(name, json.dumps(values).encode())
    return name
