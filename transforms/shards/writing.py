"""Writes shards: from a plan's spans to a Parquet file and, optionally, a TFRecord file.

A shard is a pure function of its plan and of the recordings. Its name is a digest of the plan and
of its files' content, so files with the same name have the same bytes. A second attempt therefore
never replaces a file with other content. A shard is finished when its receipt, which is written
last, exists.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from melmill.transforms.core.errors import DatasetError, RecordingError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Failure, Recording
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.spans import Span, SpanRows, extract_span
from melmill.transforms.index.tables import is_indexed
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan
from melmill.transforms.rows.distribution import DistributionCounter
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.parquet import ParquetShard, read_rows
from melmill.transforms.rows.rows_digest import combine_digests, digest_text, rows_digest
from melmill.transforms.rows.schema import Float32Array, LabelColumn, RowBatch, round_to_resolution
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.rows.tfrecord import TFRecordShard
from melmill.transforms.shards.receipts import announce_shard, read_receipt, write_receipt
from melmill.transforms.store.folders import Store


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

#: Maximum size of the spectrograms in a row group, whatever number of rows is configured.
_ROW_GROUP_BYTES = 32 * 2**20
#: Size of the parts in which the decoder process's spectrograms are read.
_READ_BYTES = 2**20
#: Columns that give a row's place in its recording.
_PLACE = ("chunk_index", "start_sample", "valid_samples")
#: Number of recordings that are fetched while the current recording is decoded.
_UPCOMING = 3


@dataclass(slots=True)
class Tally:
    """The statistics of a shard's rows, counted while the rows are written."""

    rows: int = 0
    moments: Moments | None = None
    recordings: dict[str, RecordingRows] = field(default_factory=dict)
    null_labels: set[str] = field(default_factory=set)
    distribution: DistributionCounter = field(default_factory=DistributionCounter)

    def count(self, batch: RowBatch, labels: Sequence[LabelColumn]) -> None:
        """Add a row group to the statistics."""
        moments = Moments.of(batch.mel)
        self.rows += batch.rows
        self.moments = moments if self.moments is None else self.moments.merge(moments)
        for entry in held_recordings(batch):
            known = self.recordings.get(entry.recording_id)
            self.recordings[entry.recording_id] = add_rows(known, entry) if known else entry
        self.null_labels |= {label.name for label in labels if None in batch.columns[label.name]}
        self.distribution.count(batch, labels)


def held_recordings(batch: RowBatch) -> Iterator[RecordingRows]:
    """Yield a summary of each run of consecutive rows of one recording in a batch."""
    names = list(batch.columns["recording_id"])
    begins = [i for i in range(batch.rows) if not i or names[i] != names[i - 1]]
    for start, stop in pairwise([*begins, batch.rows]):
        part = slice(start, stop)
        columns = {name: batch.columns[name][part] for name in _PLACE}
        channel = batch.columns.get("channel", [0] * batch.rows)[part]
        peaks = map(float, batch.columns["peak_dbfs"][part])
        digest = rows_digest(channel=channel, mel=batch.mel[part], **columns)
        yield RecordingRows(names[start], stop - start, max(peaks), digest_text(digest))


def add_rows(one: RecordingRows, other: RecordingRows) -> RecordingRows:
    """Return the summary of two parts of a recording's rows together."""
    digests = [int(part.digest, 16) for part in (one, other) if part.digest]
    digest = digest_text(combine_digests(digests)) if len(digests) == 2 else ""
    peak_dbfs = max(one.peak_dbfs, other.peak_dbfs)
    return RecordingRows(one.recording_id, one.rows + other.rows, peak_dbfs, digest)


def write_shard(
    plan: ShardPlan, job: ExtractJob, decoder: DecoderProcess, report: Report
) -> ShardSummary:
    """Write a shard, unless it is already finished, and return its summary.

    Raises
    ------
    DatasetError
        If the dataset's folder cannot be written.
    """
    if (finished := read_receipt(job, plan.name)) is not None:
        failed = {failure.recording_id: failure for failure in finished.failures}
        for span in plan.spans:
            failure = failed.get(span.probed.recording.recording_id)
            channels = count_channels(span.probed.audio.channels, job.features.channels)
            rows = 0 if failure else span.chunks * channels
            report(SpanOutcome(span, rows, failure, reused=True))
        return finished
    failures: list[Failure] = []
    # A later run clears the store's scratch folder, even if this run is killed.
    with job.store.scratch() as spool:
        batches = _extract_rows(plan, job, decoder, spool, failures, report)
        summary = _write_rows(plan.name, plan.split, batches, failures, job)
    write_receipt(job, summary)
    return summary


def withdraw_recordings(
    summary: ShardSummary, recording_ids: Collection[str], job: ExtractJob
) -> ShardSummary:
    """Rewrite a shard without some recordings, from its own rows; nothing is decoded.

    A dataset holds all rows of a recording or none. If one span of a recording failed, its rows
    are therefore removed from the shards that hold its other spans.
    """
    removed = {entry.recording_id for entry in summary.recordings} & set(recording_ids)
    if not removed or summary.parquet is None:
        return summary
    plan = digest("withdrawn", summary.name, *sorted(removed))
    kept = (without(batch, removed) for batch in read_shard(job.store, summary))
    expected = [entry for entry in summary.recordings if entry.recording_id not in removed]
    return write_again(plan, summary.split, kept, expected, job, summary.failures)


def write_again(
    plan: str,
    split: str,
    batches: Iterable[RowBatch],
    expected: Iterable[RecordingRows],
    job: ExtractJob,
    failures: Iterable[Failure] = (),
) -> ShardSummary:
    """Write a shard from existing rows, unless it is already finished, and return its summary.

    Parameters
    ----------
    plan
        Digest of the rows that the shard is written from.
    split
        Split of the shard.
    batches
        Rows of the shard; they are read only if the shard is not finished.
    expected
        Rows that the shard must hold of each recording, in any order. A recording may come in
        several parts.
    job
        Job that writes the shard.
    failures
        Failures of recordings of which the shard holds no rows.

    Raises
    ------
    RuntimeError
        If the batches lack rows of a recording, or have too many. Nothing may be committed then.
    """
    if (finished := read_receipt(job, plan)) is not None:
        # The plan depends on the rows only; the failures may be different now.
        return replace(finished, failures=tuple(failures))
    summary = _write_rows(plan, split, batches, list(failures), job)
    summary = _require_rows(summary, expected)
    write_receipt(job, summary)
    return summary


def _require_rows(summary: ShardSummary, expected: Iterable[RecordingRows]) -> ShardSummary:
    """Return the summary; raise ``RuntimeError`` if it does not have the expected rows."""
    required: dict[str, RecordingRows] = {}
    for entry in expected:
        known = required.get(entry.recording_id)
        required[entry.recording_id] = add_rows(known, entry) if known else entry
    written = {entry.recording_id: entry for entry in summary.recordings}
    for recording_id in sorted(required.keys() | written.keys()):
        if not is_same(written.get(recording_id), required.get(recording_id)):
            raise RuntimeError(
                f"shard {summary.name} was written with {written.get(recording_id)}, but must hold "
                f"{required.get(recording_id)}: the rows that it was written from are wrong"
            )
    # Rows that an older melmill wrote have no digest, neither here nor in the index.
    entries = (replace(rows, digest=required[name].digest) for name, rows in written.items())
    return replace(summary, recordings=tuple(entries))


def is_same(held: RecordingRows | None, wanted: RecordingRows | None) -> bool:
    """Return whether a shard holds the rows of a recording that it must hold."""
    if held is None or wanted is None:
        return False
    return held.rows == wanted.rows and (held.digest == wanted.digest or not wanted.digest)


def read_shard(store: Store, summary: ShardSummary) -> Iterator[RowBatch]:
    """Yield a shard's rows, one row group at a time.

    Raises
    ------
    DatasetError
        If the shard is missing or damaged.
    """
    if summary.parquet is not None:
        with store.reading_shard(summary.parquet.name) as file:
            for batch in read_rows(file):
                # Python values, as they were when the rows were made.
                columns = {name: _as_list(values) for name, values in batch.columns.items()}
                yield RowBatch(columns, batch.mel)


def _as_list(values: Any) -> list[Any]:
    as_list: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return as_list


def without(batch: RowBatch, gone: Collection[str]) -> RowBatch:
    """Return a batch without the rows of some recordings."""
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
        upcoming = [job.source(recording) for recording in _read_from_start(following)]
        source = job.source(span.probed.recording)
        started = time.perf_counter()
        try:
            rows = decoder.call(
                job.limits.timeout_s, extract_span, span, job.features, source, spool, upcoming
            )
        except RecordingError as error:
            failures.append(Failure.of(span.probed.recording, error))
            decode_seconds = time.perf_counter() - started
            report(SpanOutcome(span, 0, failures[-1], decode_seconds=decode_seconds))
            continue
        yield from _spooled(span, rows, job, spool)
        durations = rows.decode_seconds, rows.features_seconds
        report(SpanOutcome(span, len(rows.chunk_index), None, False, *durations))


def _read_from_start(spans: Sequence[Span]) -> Iterator[Recording]:
    """Yield the recordings that are read from their start."""
    for span in spans:
        if span.first_chunk == 0 and span.origin_sample == 0:
            yield span.probed.recording


@contextmanager
def _spool_errors(spool: Path) -> Iterator[None]:
    """Turn an error of the working files into an error that names them.

    Otherwise the error would look like an error of the dataset's files.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot read working files in {spool.parent}: {error}") from error


def _spooled(span: Span, rows: SpanRows, job: ExtractJob, spool: Path) -> Iterator[RowBatch]:
    """Yield a span's rows, with the spectrograms that the decoder process wrote to a file."""
    shape = job.features.shape
    size = max(1, _READ_BYTES // (4 * math.prod(shape)))
    with _spool_errors(spool), spool.open("rb") as file:
        for start in range(0, len(rows.chunk_index), size):
            part = slice(start, min(start + size, len(rows.chunk_index)))
            mel = np.empty((part.stop - part.start, *shape), np.float32)
            if file.readinto(mel.data) < mel.nbytes:
                raise RuntimeError(f"{spool} holds fewer rows than the span")
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
    """Return the number of rows in a row group: the configured number, limited by memory."""
    n_mels, frames = job.features.shape
    return max(1, min(job.writer.row_group_rows, _ROW_GROUP_BYTES // (4 * n_mels * frames)))


def regroup(batches: Iterable[RowBatch], size: int) -> Iterator[RowBatch]:
    """Yield the rows of batches in new batches of a given size; the last may be smaller.

    The new batches share one buffer: use each batch before you request the next. If every row
    group had new memory, it would lie at a new address each time, and the worker's memory
    would grow with its shard.
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
    plan: str,
    split: str,
    batches: Iterable[RowBatch],
    failures: list[Failure],
    job: ExtractJob,
) -> ShardSummary:
    tally = Tally()
    metadata = {"melmill.features": job.features.canonical(), "melmill.plan": plan}
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
        name, files = _publish(paths, plan, split, job) if tally.rows else (plan, {})
    return _summary(name, plan, split, tally, files, failures, job)


def _open_writer(form: str, path: Path, job: ExtractJob, metadata: dict[str, str]) -> Any:
    if form == "tfrecord":
        return TFRecordShard(path, job.schema)
    level = job.writer.compression_level
    return ParquetShard(path, job.schema, metadata, compression_level=level)


def _publish(
    paths: dict[Any, Path], plan: str, split: str, job: ExtractJob
) -> tuple[str, dict[str, FileEntry]]:
    """Put a shard's files into the dataset; return the shard's name and its file entries.

    The name is a digest of the plan and of the files' content.
    """
    checksums = {form: _checksum(path) for form, path in paths.items()}
    name = digest(plan, *(checksums[form] for form in sorted(checksums)))
    entries = {
        form: FileEntry(shard_file(form, split, name), path.stat().st_size, checksums[form])
        for form, path in paths.items()
    }
    announce_shard(job, name, [entry.name for entry in entries.values()])
    for form, path in paths.items():
        _publish_once(path, entries[form], name, job.store)
    return name, entries


def shard_file(form: str, split: str, name: str) -> str:
    """Return the name of a shard's file in a format, relative to the dataset.

    >>> shard_file("parquet", "train", "5f"), shard_file("tfrecord", "train", "5f")
    ('split=train/part-5f.parquet', 'tfrecord/train/part-5f.tfrecord')
    """
    folder = f"split={split}" if form == "parquet" else f"tfrecord/{split}"
    return f"{folder}/part-{name}.{form}"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish_once(path: Path, entry: FileEntry, shard: str, store: Store) -> None:
    """Put a file into the dataset, unless a file with that name and size exists."""
    present = store.size(entry.name)
    if present == entry.size_bytes:
        return
    if present is not None and is_indexed(store, shard):
        raise DatasetError(
            f"{store.root}: {entry.name} has {present:,} bytes, but {entry.size_bytes:,} were "
            "written: it is damaged, and a kept snapshot uses it. melmill validate lists all "
            "damage; remove the file, and run the same command again"
        )
    store.publish(path, entry.name)


def _summary(
    name: str,
    plan: str,
    split: str,
    tally: Tally,
    files: dict[str, FileEntry],
    failures: list[Failure],
    job: ExtractJob,
) -> ShardSummary:
    moments = tally.moments or Moments.empty(job.features.mel.n_mels)
    return ShardSummary(
        name=name,
        plan=plan,
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
