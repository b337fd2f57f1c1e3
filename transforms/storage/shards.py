"""Shards: a plan's spans in, one Parquet file (and its TFRecord twin) out.

A shard is a pure function of its plan, so making it twice does no harm: the files have
the same names and the same bytes. It counts as finished when its receipt is there, which
is written last.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from transforms.audio.isolation import DecoderProcess
from transforms.audio.spans import Span, SpanRows, extract_span
from transforms.errors import DatasetError, RecordingError
from transforms.job import ExtractJob
from transforms.planning import ShardPlan
from transforms.records import Failure, Recording
from transforms.storage.distribution import DistributionCounter
from transforms.storage.index import known_shards
from transforms.storage.moments import Moments
from transforms.storage.naming import digest
from transforms.storage.parquet import ParquetShard, read_rows
from transforms.storage.schema import Float32Array, LabelColumn, RowBatch, round_to_resolution
from transforms.storage.store import Store
from transforms.storage.summaries import FileEntry, RecordingRows, ShardSummary
from transforms.storage.tfrecord import TFRecordShard


@dataclass(frozen=True, slots=True)
class SpanOutcome:
    """What became of a span.

    Attributes
    ----------
    span
        Which.
    rows
        That it gave; 0 where it failed.
    failed
        The cause; ``""`` where it did not.
    reused
        Whether that was known already, from a finished shard.
    decode_seconds, features_seconds
        What it took.
    """

    span: Span
    rows: int
    failed: str = ""
    reused: bool = False
    decode_seconds: float = 0.0
    features_seconds: float = 0.0


#: Called after each span.
Report = Callable[[SpanOutcome], None]

#: However many rows a row group should have, its spectrograms take no more than this.
_ROW_GROUP_BYTES = 32 * 2**20
#: Spectrograms are read back from the decoder process in parts of this size.
_READ_BYTES = 2**20
#: Recordings that are fetched while the one before them is decoded.
_UPCOMING = 3


@dataclass(slots=True)
class Tally:
    """What was seen of the rows on their way into the files."""

    rows: int = 0
    moments: Moments | None = None
    recordings: dict[str, RecordingRows] = field(default_factory=dict)
    null_labels: set[str] = field(default_factory=set)
    distribution: DistributionCounter = field(default_factory=DistributionCounter)

    def count(self, batch: RowBatch, labels: Sequence[LabelColumn]) -> None:
        """Take a row group into account."""
        moments = Moments.of(batch.mel)
        self.rows += batch.rows
        self.moments = moments if self.moments is None else self.moments.merge(moments)
        pairs = zip(batch.columns["recording_id"], batch.columns["peak_dbfs"], strict=True)
        for recording_id, peak_dbfs in pairs:
            known = self.recordings.get(recording_id)
            rows, peak = (known.rows, known.peak_dbfs) if known else (0, float("-inf"))
            latest = RecordingRows(recording_id, rows + 1, max(peak, float(peak_dbfs)))
            self.recordings[recording_id] = latest
        self.null_labels |= {label.name for label in labels if None in batch.columns[label.name]}
        self.distribution.count(batch, labels)


def write_shard(
    plan: ShardPlan, job: ExtractJob, decoder: DecoderProcess, report: Report
) -> ShardSummary:
    """Make a shard, unless it is there already.

    Raises
    ------
    DatasetError
        The dataset's folder cannot be written.
    """
    receipt = f"{job.staging}/shards/{plan.name}.json"
    finished = known_shards(job.store, job.known_index).get(plan.name)
    if finished is None or not is_whole(finished, job):
        finished = read_receipt(job, receipt)
    if finished is not None:
        failed = {failure.recording_id: failure.cause for failure in finished.failures}
        for span in plan.spans:
            cause = failed.get(span.probed.recording.recording_id, "")
            report(SpanOutcome(span, 0 if cause else span.chunks, cause, reused=True))
        return finished
    failures: list[Failure] = []
    # In the store's scratch folder, which a later run clears even if this one is killed.
    with job.store.scratch() as spool:
        batches = _extract_rows(plan, job, decoder, spool, failures, report)
        summary = _write_rows(plan.name, plan.split, batches, failures, job)
    job.store.put(receipt, summary.to_json())
    return summary


def read_receipt(job: ExtractJob, receipt: str) -> ShardSummary | None:
    """Read a finished shard's receipt, if its files are as it says and final."""
    try:
        summary = ShardSummary.from_json(job.store.read(receipt))
    except FileNotFoundError:
        return None
    return summary if is_whole(summary, job) else None


def is_whole(summary: ShardSummary, job: ExtractJob) -> bool:
    """Tell whether a shard needs no more work: its files are there, its failures final."""
    wanted = {form for form in job.writer.formats if summary.rows}
    files = {"parquet": summary.parquet, "tfrecord": summary.tfrecord}
    there = {
        form
        for form, file in files.items()
        if file is not None and job.store.size(file.name) == file.size_bytes
    }
    return summary.is_final and wanted <= there


def withdraw_recordings(
    summary: ShardSummary, recording_ids: Collection[str], job: ExtractJob
) -> ShardSummary:
    """Write a shard anew without some recordings, from its own rows, decoding nothing.

    A recording is in a dataset whole or not at all: where one of its spans failed, its
    rows leave the shards that hold its other spans.
    """
    gone = {entry.recording_id for entry in summary.recordings} & set(recording_ids)
    if not gone or summary.parquet is None:
        return summary
    name = digest("withdrawn", summary.name, *sorted(gone))
    kept = (without(batch, gone) for batch in read_shard(job.store, summary))
    return write_again(name, summary.split, kept, job, summary.plan, summary.failures)


def write_again(
    name: str,
    split: str,
    batches: Iterable[RowBatch],
    job: ExtractJob,
    plan: str = "",
    failures: Iterable[Failure] = (),
) -> ShardSummary:
    """Write a shard of rows that are there already, unless it is.

    Parameters
    ----------
    name, split
        The shard's.
    batches
        Its rows; asked for only if they are needed.
    job
        What it belongs to.
    plan
        That it came of; its own name without.
    failures
        Recordings of its plan that it holds nothing of.
    """
    receipt = f"{job.staging}/shards/{name}.json"
    if (finished := read_receipt(job, receipt)) is not None:
        return finished
    summary = _write_rows(name, split, batches, list(failures), job)
    summary = replace(summary, plan=plan or name)
    job.store.put(receipt, summary.to_json())
    return summary


def read_shard(store: Store, summary: ShardSummary) -> Iterator[RowBatch]:
    """Read a shard's rows, a row group at a time.

    Raises
    ------
    DatasetError
        It is missing or damaged.
    """
    if summary.parquet is not None:
        with store.reading_shard(summary.parquet.name) as file:
            for batch in read_rows(file):
                # Python's own values, as they were when the rows were made.
                columns = {name: _as_list(values) for name, values in batch.columns.items()}
                yield RowBatch(columns, batch.mel)


def _as_list(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return listed


def made_shards(job: ExtractJob) -> Iterator[ShardSummary]:
    """Read the receipts of what a run has made so far, or an earlier attempt at it."""
    for receipt in list(job.store.names(f"{job.staging}/shards")):
        yield ShardSummary.from_json(job.store.read(receipt))


def remove_files(store: Store, summary: ShardSummary) -> None:
    """Remove a shard's files."""
    for file in (summary.parquet, summary.tfrecord):
        if file is not None and store.size(file.name) is not None:
            store.remove(file.name)


def without(batch: RowBatch, gone: Collection[str]) -> RowBatch:
    """Leave some recordings' rows out of a batch."""
    keep = [i for i, name in enumerate(batch.columns["recording_id"]) if name not in gone]
    columns = {name: [values[i] for i in keep] for name, values in batch.columns.items()}
    return RowBatch(columns, batch.mel[keep])


def _extract_rows(
    plan: ShardPlan,
    job: ExtractJob,
    decoder: DecoderProcess,
    spool: Path,
    failures: list[Failure],
    report: Report,
) -> Iterator[RowBatch]:
    for number, span in enumerate(plan.spans):
        following = plan.spans[number + 1 : number + 1 + _UPCOMING]
        upcoming = [job.source(r) for r in _from_start(following)]
        source = job.source(span.probed.recording)
        started = time.perf_counter()
        try:
            rows = decoder.call(
                job.limits.timeout_s, extract_span, span, job.features, source, spool, upcoming
            )
        except RecordingError as error:
            failures.append(Failure.of(span.probed.recording, error))
            took_seconds = time.perf_counter() - started
            report(SpanOutcome(span, 0, error.cause, decode_seconds=took_seconds))
            continue
        yield from _spooled(span, rows, job, spool)
        took = rows.decode_seconds, rows.features_seconds
        report(SpanOutcome(span, len(rows.chunk_index), "", False, *took))


def _from_start(spans: Sequence[Span]) -> Iterator[Recording]:
    """Give the recordings that are read from their start on."""
    for span in spans:
        if span.first_chunk == 0 and span.origin_sample == 0:
            yield span.probed.recording


@contextmanager
def _spool_errors(spool: Path) -> Iterator[None]:
    """Name the working files in their errors, which would pass for the dataset's."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot read working files in {spool.parent}: {error}") from error


def _spooled(span: Span, rows: SpanRows, job: ExtractJob, spool: Path) -> Iterator[RowBatch]:
    shape = job.features.shape
    size = max(1, _READ_BYTES // (4 * math.prod(shape)))
    with _spool_errors(spool), spool.open("rb") as file:
        for start in range(0, len(rows.chunk_index), size):
            part = slice(start, min(start + size, len(rows.chunk_index)))
            mel = np.empty((part.stop - part.start, *shape), np.float32)
            if file.readinto(mel.data) < mel.nbytes:
                raise RuntimeError(f"{spool} holds fewer rows than the span has")
            round_to_resolution(mel, job.features.resolution)
            yield RowBatch(_columns(span, rows, part, job), mel)


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
    if job.schema.per_channel:
        columns["channel"] = rows.channel[part].tolist()
    return columns | {label.name: [labels[label.name]] * number for label in job.schema.labels}


def row_group_rows(job: ExtractJob) -> int:
    """Rows of a row group: as configured, within a bound of memory."""
    n_mels, frames = job.features.shape
    return max(1, min(job.writer.row_group_rows, _ROW_GROUP_BYTES // (4 * n_mels * frames)))


def regroup(batches: Iterable[RowBatch], size: int) -> Iterator[RowBatch]:
    """Join and divide batches so that each but the last has so many rows.

    They share one buffer: each is to be used before the next is asked for. Memory taken anew
    for every row group would lie in other places each time, and a worker grow with its shard.
    """
    group: Float32Array | None = None
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    filled = 0
    for batch in batches:
        if group is None:
            group = np.empty((size, *batch.mel.shape[1:]), np.float32)
        start = 0
        while start < batch.rows:
            stop = min(batch.rows, start + size - filled)
            group[filled : filled + stop - start] = batch.mel[start:stop]
            for name, values in batch.columns.items():
                columns[name] += values[start:stop]
            filled, start = filled + stop - start, stop
            if filled == size:
                yield RowBatch(dict(columns), group)
                columns.clear()
                filled = 0
    if group is not None and filled:
        yield RowBatch(dict(columns), group[:filled])


def _write_rows(
    name: str,
    split: str,
    batches: Iterable[RowBatch],
    failures: list[Failure],
    job: ExtractJob,
) -> ShardSummary:
    tally = Tally()
    metadata = {"melmill.features": job.features.canonical(), "melmill.shard": name}
    with ExitStack() as stack:
        paths = {form: stack.enter_context(job.store.scratch()) for form in job.writer.formats}
        writers = [
            stack.enter_context(_open_writer(form, path, job, metadata))
            for form, path in paths.items()
        ]
        for batch in regroup(batches, row_group_rows(job)):
            for writer in writers:
                writer.add(batch)
            tally.count(batch, job.schema.labels)
        for writer in writers:
            writer.close()
        files = _publish(paths, name, split, job) if tally.rows else {}
    return _summary(name, split, tally, files, failures, job)


def _open_writer(form: str, path: Path, job: ExtractJob, metadata: dict[str, str]) -> Any:
    if form == "tfrecord":
        return TFRecordShard(path, job.schema)
    level = job.writer.compression_level
    return ParquetShard(path, job.schema, metadata, compression_level=level)


def _publish(
    paths: dict[Any, Path], name: str, split: str, job: ExtractJob
) -> dict[str, FileEntry]:
    names = {
        "parquet": f"split={split}/part-{name}.parquet",
        "tfrecord": f"tfrecord/{split}/part-{name}.tfrecord",
    }
    entries = {}
    for form, path in paths.items():
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        entries[form] = FileEntry(names[form], path.stat().st_size, checksum)
        job.store.publish(path, names[form])
    return entries


def _summary(
    name: str,
    split: str,
    tally: Tally,
    files: dict[str, FileEntry],
    failures: list[Failure],
    job: ExtractJob,
) -> ShardSummary:
    moments = tally.moments or Moments.empty(job.features.mel.n_mels)
    return ShardSummary(
        name=name,
        plan=name,
        split=split,
        rows=tally.rows,
        parquet=files.get("parquet"),
        tfrecord=files.get("tfrecord"),
        recordings=tuple(tally.recordings.values()),
        failures=tuple(failures),
        null_labels=tuple(sorted(tally.null_labels)),
        count=moments.count,
        mean=tuple(moments.mean.tolist()),
        m2=tuple(moments.m2.tolist()),
        low=moments.low,
        high=moments.high,
        distribution=tally.distribution.total(),
    )
