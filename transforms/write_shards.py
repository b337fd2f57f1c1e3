"""Writes planned shards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import apache_beam as beam

from melmill.transforms.beam.do_fns import DecodingDoFn
from melmill.transforms.beam.metrics import count, count_failure, count_recordings, observe_ms
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.features.chunks import count_chunks
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan
from melmill.transforms.plan.recordings import read_again
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.extracting import SpanOutcome, write_shard
from melmill.transforms.shards.rewriting import withdraw_recordings


@dataclass(frozen=True, slots=True)
class Written:
    """The outputs of :class:`WriteShards`.

    Attributes
    ----------
    summaries
        Summaries of finished shards; the rows stay in the files.
    again
        Recordings to plan again, because their decode gave another length than planned.
    """

    summaries: beam.PCollection[ShardSummary]
    again: beam.PCollection[ProbedRecording]


@dataclass(frozen=True, slots=True)
class _ShardResult:
    """The result of one shard.

    Attributes
    ----------
    summary
        Summary of the shard.
    incomplete
        Ids of failed recordings whose other spans must be removed from other shards.
    again
        Recordings to plan again.
    """

    summary: ShardSummary
    incomplete: tuple[str, ...]
    again: tuple[ProbedRecording, ...]


@dataclass(eq=False)
class WriteShards(beam.PTransform):
    """Write every planned shard, and remove the rows of recordings that failed in part.

    A retry reuses finished shards, and writes unfinished shards again. The step fails if the
    dataset cannot be written.

    Attributes
    ----------
    job
        Job of the run.
    last
        Whether every failure is final, and no recording is planned again.
    """

    job: ExtractJob
    last: bool = False

    def expand(self, plans: beam.PCollection[ShardPlan]) -> Written:
        """Write one shard at a time on each worker, then correct the few shards that need it."""
        results = (
            plans
            | "SpreadPlans" >> beam.Reshuffle()
            | "MakeShards" >> beam.ParDo(_WriteShard(self.job, self.last))
            # A second attempt may fail differently: both uses must see the same attempt.
            | "KeepSummaries" >> beam.Reshuffle()
        )
        incomplete = results | "TakeIncomplete" >> beam.FlatMap(lambda result: result.incomplete)
        withdrawn = results | "WithdrawRecordings" >> beam.Map(
            _withdraw, beam.pvalue.AsIter(incomplete), self.job
        )
        again = results | "TakeAgain" >> beam.FlatMap(lambda result: result.again)
        return Written(withdrawn, again)


class _WriteShard(DecodingDoFn):
    def __init__(self, job: ExtractJob, last: bool) -> None:
        super().__init__(job)
        self.last = last

    def process(self, plan: ShardPlan) -> Iterator[_ShardResult]:
        self.is_new = False
        self.span_seconds, started = 0.0, time.perf_counter()
        summary = write_shard(plan, self.job, self.decoder, self._report)
        if self.is_new:
            count("shards_written")
            count("rows_written", summary.rows)
            files = (summary.parquet, summary.tfrecord)
            count("bytes_out", sum(file.size_bytes for file in files if file is not None))
            observe_ms("write_ms", time.perf_counter() - started - self.span_seconds)
        else:
            count("shards_reused")
        self.progress.add(shards=1)
        incomplete = tuple(find_incomplete(plan, summary, self.job))
        again = () if self.last else tuple(find_again(plan, summary, self.job))
        replanned = {probed.recording.recording_id for probed in again}
        failures = tuple(f for f in summary.failures if f.recording_id not in replanned)
        yield _ShardResult(replace(summary, failures=failures), incomplete, again)

    def _report(self, outcome: SpanOutcome) -> None:
        if self._is_read_again(outcome):
            return
        span, chunk = outcome.span, self.job.features.chunk
        chunks = count_chunks(span.samples, chunk)
        share = span.chunks / chunks
        recordings = 0.0 if span.variant else share
        samples = min(span.samples * share, span.chunks * chunk.hop)
        seconds = samples / self.job.features.sample_rate_hz
        if not outcome.reused:
            self._count_new(outcome, seconds)
        if span.stop_chunk == chunks and not span.variant:
            count_recordings("extract", 1, 0 if outcome.failed else 1)
        if outcome.failed:
            count("spans_failed")
            count_failure(outcome.failed)
        self.progress.add(
            rows=outcome.rows,
            failed=recordings if outcome.failed else 0,
            recordings=recordings,
            seconds=seconds,
        )

    def _is_read_again(self, outcome: SpanOutcome) -> bool:
        recording, failure = outcome.span.probed.recording, outcome.failure
        if self.last or failure is None:
            return False
        return read_again(recording, failure, self.job.limits.damaged) is not None

    def _count_new(self, outcome: SpanOutcome, seconds: float) -> None:
        self.is_new = True
        self.span_seconds += outcome.decode_seconds + outcome.features_seconds
        if outcome.failed:
            return
        count("audio_ms_extracted", round(1000 * seconds))
        audio, size_bytes = outcome.span.probed.audio, outcome.span.probed.recording.size_bytes
        whole_seconds = audio.frames / audio.sample_rate_hz
        count("bytes_in", round(size_bytes * min(1.0, seconds / whole_seconds)))
        observe_ms("decode_ms", outcome.decode_seconds)
        observe_ms("features_ms", outcome.features_seconds)


def find_incomplete(plan: ShardPlan, summary: ShardSummary, job: ExtractJob) -> Iterator[str]:
    """Yield the ids of failed recordings whose other spans may be in other shards."""
    failed = {failure.recording_id for failure in summary.failures}
    for span in plan.spans:
        recording_id = span.probed.recording.recording_id
        whole = span.chunks == count_chunks(span.samples, job.features.chunk)
        if recording_id in failed and (job.features.variants or not whole):
            yield recording_id


def find_again(
    plan: ShardPlan, summary: ShardSummary, job: ExtractJob
) -> Iterator[ProbedRecording]:
    """Yield the failed recordings to plan again, with the audio that can be read."""
    recordings = {s.probed.recording.recording_id: s.probed.recording for s in plan.spans}
    for failure in summary.failures:
        again = read_again(recordings[failure.recording_id], failure, job.limits.damaged)
        if again is not None:
            yield again


def _withdraw(result: _ShardResult, failed: Iterable[str], job: ExtractJob) -> ShardSummary:
    return withdraw_recordings(result.summary, frozenset(failed), job)
