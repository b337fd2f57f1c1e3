"""Plans recordings, and divides them among shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count, count_failure, count_recordings
from melmill.transforms.beam.outputs import FAILURES
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Failure, ProbedRecording
from melmill.transforms.plan.change_records import Decision, Difference
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import (
    ShardPlan,
    SplitTotals,
    count_buckets,
    count_shards,
    pack_shards,
    packed_with,
    row_bytes,
)
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording

Totals = Mapping[str, SplitTotals]

#: Difference of an extraction, which starts from no snapshot and carries nothing over.
_NOTHING = Difference()


@dataclass(eq=False)
class PlanRecordings(beam.PTransform):
    """Find the chunks and the split of every recording.

    The outputs are :class:`~melmill.transforms.plan.recordings.PlannedRecording`, also for
    recordings without rows, and, tagged ``failures``,
    :class:`~melmill.transforms.core.records.Failure`.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(self, probed: beam.PCollection[ProbedRecording]) -> beam.pvalue.DoOutputsTuple:
        """Plan one recording at a time."""
        plan = beam.ParDo(_PlanRecording(self.job))
        return probed | "CountChunks" >> plan.with_outputs(FAILURES, main="recordings")


class _PlanRecording(ReportingDoFn):
    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(
        self, probed: ProbedRecording
    ) -> Iterator[PlannedRecording | beam.pvalue.TaggedOutput]:
        job = self.job
        try:
            planned = plan_recording(probed, job.features, job.split, job.limits.max_seconds)
        except RecordingError as error:
            count_recordings("plan", 1, 0)
            count_failure(error.cause)
            self.progress.add(failed=1)
            yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(probed.recording, error))
        else:
            count_recordings("plan")
            count("rows_planned", planned.rows)
            samples = sum(cut.samples for cut in planned.cuts())
            seconds = samples / job.features.sample_rate_hz
            count("audio_ms_planned", round(1000 * seconds))
            self.progress.add(planned=1, rows_planned=planned.rows, seconds_planned=seconds)
            yield planned


@dataclass(eq=False)
class PlanShards(beam.PTransform):
    """Divide the recordings among shards.

    The output is :class:`~melmill.transforms.plan.packing.ShardPlan` elements. They do not depend
    on the order of the recordings. If so many recordings have failed that the run will not be
    committed, there is no output. Only small records are grouped, never audio.

    Attributes
    ----------
    job
        Job of the run.
    decision
        Decision of a refresh, which counts the recordings and rows that are carried over.
    adopted
        Number of recordings that took over existing rows, in a refresh.
    """

    job: ExtractJob
    decision: beam.PCollection[Decision] | None = None
    adopted: beam.PCollection[int] | None = None

    def expand(
        self,
        found: tuple[beam.PCollection[PlannedRecording], beam.PCollection[Failure]],
    ) -> beam.PCollection[ShardPlan]:
        """Divide recordings into buckets by digest, and pack each bucket on one worker."""
        recordings, failures = found
        failed = beam.pvalue.AsSingleton(
            failures | "CountFailures" >> beam.combiners.Count.Globally()
        )
        carried: Any = _NOTHING
        if self.decision is not None and self.adopted is not None:
            number = beam.pvalue.AsSingleton(self.adopted)
            carried = beam.pvalue.AsSingleton(
                self.decision | "TakeCarried" >> beam.Map(_carried, number)
            )
        totals = beam.pvalue.AsDict(
            recordings
            | "CountRows" >> beam.Map(lambda r: (r.split, SplitTotals(1, r.rows)))
            | "SumSplits" >> beam.CombinePerKey(_sum_totals)
        )
        return (
            recordings
            | "KeyByBucket" >> beam.Map(_key_by_bucket, totals)
            | "GroupByBucket" >> beam.GroupByKey()
            | "PackShards" >> beam.FlatMap(pack_bucket, totals, failed, self.job, carried)
        )


def _carried(decision: Decision, adopted: int) -> Difference:
    difference = decision.difference
    return replace(difference, carried_recordings=difference.carried_recordings + adopted)


def _sum_totals(parts: Iterable[SplitTotals]) -> SplitTotals:
    return sum(parts, SplitTotals())


def _key_by_bucket(
    planned: PlannedRecording, totals: Totals
) -> tuple[tuple[str, int], PlannedRecording]:
    buckets = count_buckets(totals[planned.split])
    number = bucket(packed_with(planned), buckets)
    return (planned.split, number), planned


def pack_bucket(
    group: tuple[tuple[str, int], Iterable[PlannedRecording]],
    totals: Totals,
    failed: int,
    job: ExtractJob,
    carried: Difference = _NOTHING,
) -> Iterator[ShardPlan]:
    """Yield plans of shards for one bucket: its share of the split's shards."""
    (split, _), recordings = group[0], list(group[1])
    rows = sum(planned.rows for planned in recordings)
    failed += carried.carried_failures
    listed = failed + sum(total.recordings for total in totals.values())
    listed += carried.carried_recordings
    if not rows or job.limits.too_many_failed(failed, listed):
        return
    all_rows = sum(total.rows for total in totals.values()) + carried.carried_rows
    shards = count_shards(totals[split], all_rows, row_bytes(job.features), job.shards)
    number = ceil(shards * rows / totals[split].rows)
    full_rows = job.shards.target_bytes // row_bytes(job.features)
    yield from pack_shards(recordings, number, job.features, job.shards.seed, job.run_id, full_rows)
