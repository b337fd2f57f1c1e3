"""Makes a shard from the spans of its plan: each span is decoded, and becomes rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from melmill.transforms.core.errors import DatasetError, RecordingError
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.core.records import Failure, MeasuredPart
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.decoded_spans import Span, place_chunks
from melmill.transforms.features.spans import FETCHED_AHEAD, SpanRows, row_type
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.valid_counts import count_valid
from melmill.transforms.measures.spans import extract_and_measure, measure_spans
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.carrying import CarriedError, CarriedRows, find_carried
from melmill.transforms.shards.receipts import read_receipt, write_receipt
from melmill.transforms.shards.writing import regroup, write_rows
from melmill.transforms.store.objects import StoredObject

#: Size of the parts in which the decoder process's features are read.
_READ_BYTES = 2**20
#: Number of a model's batches that spans are collected for: the last of them may be half empty.
_BATCHES = 4


@dataclass(frozen=True, slots=True)
class SpanOutcome:
    """The outcome of a span.

    Attributes
    ----------
    span
        Span that was read.
    rows
        Number of rows; 0 if the span failed. For a reused shard: number of chunks.
    failure
        Failure of the span; ``None`` if it did not fail.
    reused
        Whether the outcome comes from a shard that was already finished.
    decode_seconds, features_seconds
        Time to decode the span, and to compute its features.
    """

    span: Span
    rows: int
    failure: Failure | None = None
    reused: bool = False
    decode_seconds: float = 0.0
    features_seconds: float = 0.0

    @property
    def failed(self) -> str:
        """Cause of the failure; ``""`` if the span did not fail."""
        return "" if self.failure is None else self.failure.cause


#: Function that is called after each span.
Report = Callable[[SpanOutcome], None]


def write_shard(
    plan: ShardPlan, job: ExtractJob, decoder: DecoderProcess, report: Report
) -> ShardSummary:
    """Write a shard, unless it is already finished, and return its summary.

    Raises
    ------
    DatasetError
        If the dataset's folder cannot be written.
    """
    finished = read_receipt(job, plan.name)
    # An earlier attempt of the run may have measured something else.
    if finished is not None and finished.meters == job.meters:
        failed = {failure.recording_id: failure for failure in finished.failures}
        for span in plan.spans:
            failure = failed.get(span.probed.recording.recording_id)
            channels = count_channels(span.probed.audio.channels, job.features.channels)
            rows = 0 if failure else span.chunks * channels
            report(SpanOutcome(span, rows, failure, reused=True))
        return finished
    try:
        summary = _make(plan, job, decoder, report)
    except CarriedError:
        # A shard of the snapshot is damaged, so all features of this shard are computed.
        base = replace(job.base, unchanged_features=())
        summary = _make(plan, replace(job, base=base), decoder, report)
    write_receipt(job, summary)
    return summary


def _make(
    plan: ShardPlan, job: ExtractJob, decoder: DecoderProcess, report: Report
) -> ShardSummary:
    failures: list[Failure] = []
    measured: list[MeasuredPart] = []
    # A later run clears the store's scratch folder, even if this run is killed.
    with job.store.scratch() as spool:
        batches = _extract_rows(plan, job, decoder, spool, failures, measured, report)
        summary = write_rows(plan.name, plan.split, batches, failures, job)
    return replace(summary, meters=job.meters, measured=tuple(measured))


def _extract_rows(
    plan: ShardPlan,
    job: ExtractJob,
    decoder: DecoderProcess,
    spool: Path,
    failures: list[Failure],
    measured: list[MeasuredPart],
    report: Report,
) -> Iterator[RowBatch]:
    groups = [*_groups(plan.spans, job.features)][::-1]
    while groups:
        first, stop = groups.pop()
        following = plan.spans[stop : stop + FETCHED_AHEAD]
        upcoming = [job.source(span.probed.recording) for span in following if span.is_first]
        group = [_Part.of(span, job) for span in plan.spans[first:stop]]
        started, rows, failure = time.perf_counter(), list[SpanRows](), None
        if all(part.features == group[0].features for part in group):
            try:
                rows, parts = _extract(group, job, decoder, spool, upcoming)
                measured += parts
            except RecordingError as error:
                failure = Failure.of(group[0].span.probed.recording, error)
        if rows:
            yield from _spooled(group, rows, job, spool, report)
        elif len(group) > 1:
            # A failure may be that of any recording of the group: look for it in each half.
            middle = (first + stop) // 2
            groups += [(middle, stop), (first, middle)]
        elif failure is not None:
            failures.append(failure)
            decode_seconds = time.perf_counter() - started
            report(SpanOutcome(group[0].span, 0, failure, decode_seconds=decode_seconds))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A span, its recording, the features to compute, and the rows with the others, if any."""

    span: Span
    source: StoredObject
    features: FeatureSpec
    carried: CarriedRows | None

    @classmethod
    def of(cls, span: Span, job: ExtractJob) -> _Part:
        carried = find_carried(span, job)
        missing = job.features.without(job.base.unchanged_features)
        source = job.source(span.probed.recording)
        return cls(span, source, missing if carried else job.features, carried)


def _extract(
    group: Sequence[_Part],
    job: ExtractJob,
    decoder: DecoderProcess,
    spool: Path,
    upcoming: Sequence[StoredObject],
) -> tuple[list[SpanRows], list[MeasuredPart]]:
    """Return the rows of spans, and what was measured.

    Their features are in the spool, unless they are measures, or are carried over.
    """
    first, limit_s = group[0], job.limits.timeout_s
    if first.carried and not first.features.features:
        rows = [part.carried.rows for part in group if part.carried]
        return rows, _measure(group, job, decoder, upcoming)
    what = [part.span for part in group], first.features, [part.source for part in group]
    where = spool, upcoming, job.catalogue.uri
    return decoder.call(limit_s, extract_and_measure, *what, *where, job.meters)


def _measure(
    group: Sequence[_Part],
    job: ExtractJob,
    decoder: DecoderProcess,
    upcoming: Sequence[StoredObject],
) -> list[MeasuredPart]:
    """Return what was measured of spans whose features are all carried over."""
    unknown = [
        part for part in group if not part.span.variant and not part.span.probed.recording.measures
    ]
    if not unknown or not job.meters:
        return []
    what = [part.span for part in unknown], [part.source for part in unknown]
    limit_s = job.limits.timeout_s
    return decoder.call(limit_s, measure_spans, *what, job.features, job.meters, upcoming)


def _groups(spans: Sequence[Span], features: FeatureSpec) -> Iterator[tuple[int, int]]:
    """Yield the first and the last number, excluded, of spans that are extracted together.

    Spans are extracted together only to fill the batches of models.
    """
    wanted = _BATCHES * features.batch_rows if features.batch_rows > 1 else 0
    first, rows = 0, 0
    for number, span in enumerate(spans):
        channels = span.probed.audio.channels
        if number > first and (rows >= wanted or channels != spans[first].probed.audio.channels):
            yield first, number
            first, rows = number, 0
        rows += span.chunks * count_channels(channels, features.channels)
    yield first, len(spans)


@contextmanager
def _spool_errors(spool: Path) -> Iterator[None]:
    """Turn an error of the working files into an error that names them.

    Otherwise the error would look like an error of the dataset's files.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot read working files in {spool.parent}: {error}") from error


def _spooled(
    group: Sequence[_Part], rows: Sequence[SpanRows], job: ExtractJob, spool: Path, report: Report
) -> Iterator[RowBatch]:
    """Yield the rows of spans, with the features that the decoder process wrote to a file."""
    record_type = row_type(group[0].features)
    size = max(1, _READ_BYTES // job.schema.row_bytes)
    names = [column.name for column in job.schema.features]
    names_carried = job.features.columns_of(job.base.unchanged_features)
    with _spool_errors(spool), _opened(spool, record_type) as file:
        for part, own in zip(group, rows, strict=True):
            carried = regroup(part.carried.read(names_carried), size) if part.carried else None
            counts = _count_valid(part.span, job)
            for start in range(0, len(own.chunk_index), size):
                cut = slice(start, min(start + size, len(own.chunk_index)))
                features: dict[str, Array] = {}
                if file is not None:
                    records = np.empty(cut.stop - cut.start, record_type)
                    if file.readinto(records.view(np.uint8).data) < records.nbytes:
                        raise RuntimeError(f"{spool} holds fewer rows than the span")
                    features |= {name: records[name] for name in record_type.names or ()}
                features |= {name: values[cut] for name, values in own.readings.items()}
                if carried is not None:
                    features |= next(carried).features
                ordered = {name: features[name] for name in names}
                columns = _columns(part.span, own, cut, job)
                columns |= {name: numbers[cut] for name, numbers in counts.items()}
                yield RowBatch(columns, ordered)
            durations = own.decode_seconds, own.features_seconds
            report(SpanOutcome(part.span, len(own.chunk_index), None, False, *durations))


def _count_valid(span: Span, job: ExtractJob) -> dict[str, list[int]]:
    """Return the columns that count valid frames and samples, for the rows of a span."""
    channels = count_channels(span.probed.audio.channels, job.features.channels)
    counts = count_valid(job.features, place_chunks(span, job.features))
    return {name: np.repeat(counts[name], channels).tolist() for name in job.schema.counts}


def _opened(spool: Path, record_type: np.dtype[Any]) -> Any:
    """Open the file of the decoder process, unless nothing was computed."""
    return spool.open("rb") if record_type.names else nullcontext()


def _columns(span: Span, rows: SpanRows, part: slice, job: ExtractJob) -> dict[str, Any]:
    recording, number = span.probed.recording, part.stop - part.start
    labels = dict(recording.labels)
    columns: dict[str, Any] = {
        "recording_id": [recording.recording_id] * number,
        "uri": [recording.uri] * number,
        "chunk_index": rows.chunk_index[part].tolist(),
        "start_sample": rows.start_sample[part].tolist(),
        "valid_samples": rows.valid_samples[part].tolist(),
        "sample_rate_hz": [job.features.sample_rate_hz] * number,
        "peak_dbfs": rows.peak_dbfs[part].tolist(),
        "rms_dbfs": rows.rms_dbfs[part].tolist(),
    }
    if job.schema.with_variants:
        columns["variant"] = [span.variant] * number
    if job.schema.per_channel:
        columns["channel"] = rows.channel[part].tolist()
    return columns | {label.name: [labels[label.name]] * number for label in job.schema.labels}
