"""From plans to finished shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from transforms.audio.chunks import count_chunks
from transforms.audio.spans import Span
from transforms.decoding import borrow_decoder, return_decoder
from transforms.job import ExtractJob
from transforms.metrics import Progress, count
from transforms.planning import ShardPlan
from transforms.storage.shards import withdraw_recordings, write_shard
from transforms.storage.summaries import ShardSummary

INCOMPLETE = "incomplete"


@dataclass(eq=False)
class WriteShards(beam.PTransform):
    """Make every planned shard, and withdraw the recordings that failed in part.

    Out come :class:`~transforms.storage.summaries.ShardSummary`; the rows themselves stay
    in the files. A retry finds the finished shards and makes the others again under the
    same names. Fails where the dataset cannot be written.
    """

    job: ExtractJob

    def expand(self, plans: beam.PCollection[ShardPlan]) -> beam.PCollection[ShardSummary]:
        """Make shards one at a time on each worker, then correct the few that need it."""
        written = (
            plans
            | "SpreadPlans" >> beam.Reshuffle()
            | "MakeShards"
            >> beam.ParDo(_WriteShard(self.job)).with_outputs(INCOMPLETE, main="shards")
        )
        failed = beam.pvalue.AsIter(written[INCOMPLETE])
        return written["shards"] | "WithdrawRecordings" >> beam.Map(_withdraw, failed, self.job)


class _WriteShard(beam.DoFn):
    def __init__(self, job: ExtractJob) -> None:
        self.job = job

    def setup(self) -> None:
        self.progress = Progress(self.job.progress)

    def start_bundle(self) -> None:
        self.decoder = borrow_decoder(self.job.limits.memory_bytes)

    def process(self, plan: ShardPlan) -> Iterator[ShardSummary | beam.pvalue.TaggedOutput]:
        summary = write_shard(plan, self.job, self.decoder, self._report)
        count("shards_written")
        count("rows_written", summary.rows)
        self.progress.add(shards=1)
        yield summary
        for recording_id in find_incomplete(plan, summary, self.job):
            yield beam.pvalue.TaggedOutput(INCOMPLETE, recording_id)

    def finish_bundle(self) -> None:
        self.progress.tell()
        return_decoder(self.job.limits.memory_bytes, self.decoder)

    def _report(self, span: Span, rows: int, failed: bool) -> None:
        hop, rate_hz = self.job.features.chunk.hop, self.job.features.sample_rate_hz
        share = span.chunks / count_chunks(span.samples, self.job.features.chunk)
        if failed:
            count("spans_failed")
        self.progress.add(
            rows=rows,
            failed=share if failed else 0,
            recordings=share,
            seconds=min(span.samples * share, span.chunks * hop) / rate_hz,
        )


def find_incomplete(plan: ShardPlan, summary: ShardSummary, job: ExtractJob) -> Iterator[str]:
    """Name the failed recordings of which other shards may hold other spans."""
    failed = {failure.recording_id for failure in summary.failures}
    for span in plan.spans:
        recording_id = span.probed.recording.recording_id
        whole = span.chunks == count_chunks(span.samples, job.features.chunk)
        if recording_id in failed and not whole:
            yield recording_id


def _withdraw(summary: ShardSummary, failed: Iterable[str], job: ExtractJob) -> ShardSummary:
    return withdraw_recordings(summary, frozenset(failed), job)
