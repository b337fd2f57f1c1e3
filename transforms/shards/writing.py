"""Writes shards: from rows to a Parquet file and, optionally, a TFRecord file.

A shard is a pure function of its plan and of the recordings. Its name is a digest of the plan and
of its files' content, so files with the same name have the same bytes. A second attempt therefore
never replaces a file with other content. A shard is finished when its receipt, which is written
last, exists.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import digest, shard_file
from melmill.transforms.core.records import Failure
from melmill.transforms.index.tables import is_indexed
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.parquet import ParquetShard, read_rows
from melmill.transforms.rows.schema import Array, RowBatch, RowSchema
from melmill.transforms.rows.summaries import (
    FeatureMoments,
    FileEntry,
    RecordingRows,
    ShardSummary,
)
from melmill.transforms.rows.tfrecord import TFRecordShard
from melmill.transforms.shards.receipts import announce_shard, read_receipt, write_receipt
from melmill.transforms.shards.tally import Tally, add_rows, is_same
from melmill.transforms.store.folders import Store

#: Maximum size of the features in a row group, whatever number of rows is configured.
_ROW_GROUP_BYTES = 32 * 2**20


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
    summary = write_rows(plan, split, batches, list(failures), job)
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
                yield RowBatch(columns, batch.features)


def _as_list(values: Any) -> list[Any]:
    as_list: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return as_list


def without(batch: RowBatch, gone: Collection[str]) -> RowBatch:
    """Return a batch without the rows of some recordings."""
    keep = [i for i, name in enumerate(batch.columns["recording_id"]) if name not in gone]
    return batch.take(keep)


def row_group_rows(job: ExtractJob) -> int:
    """Return the number of rows in a row group of a job."""
    return rows_of_groups(job.writer.row_group_rows, job.schema)


def rows_of_groups(configured: int, schema: RowSchema) -> int:
    """Return the number of rows in a row group: the configured number, limited by memory."""
    return max(1, min(configured, _ROW_GROUP_BYTES // schema.row_bytes))


def regroup(batches: Iterable[RowBatch], size: int) -> Iterator[RowBatch]:
    """Yield the rows of batches in new batches of a given size; the last may be smaller.

    The new batches share one buffer: use each batch before you request the next. If every row
    group had new memory, it would lie at a new address each time, and the worker's memory
    would grow with its shard.
    """
    group: dict[str, Array] = {}
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    filled = 0
    for batch in batches:
        if not group:
            group = {n: np.empty((size, *v.shape[1:]), v.dtype) for n, v in batch.features.items()}
        start = 0
        while start < batch.rows:
            stop = min(batch.rows, start + size - filled)
            for name, array in batch.features.items():
                group[name][filled : filled + stop - start] = array[start:stop]
            for name, values in batch.columns.items():
                columns[name] += values[start:stop]
            filled, start = filled + stop - start, stop
            if filled == size:
                yield RowBatch(dict(columns), dict(group))
                columns.clear()
                filled = 0
    if filled:
        yield RowBatch(dict(columns), {name: array[:filled] for name, array in group.items()})


def write_rows(
    plan: str,
    split: str,
    batches: Iterable[RowBatch],
    failures: list[Failure],
    job: ExtractJob,
) -> ShardSummary:
    """Write rows to a shard's files, and return its summary; no receipt is written."""
    tally = Tally()
    metadata = {"melmill.features": job.features.canonical(), "melmill.plan": plan}
    schema = job.schema
    with ExitStack() as stack:
        paths = {form: stack.enter_context(job.store.scratch()) for form in job.writer.formats}
        writers = [
            stack.enter_context(_open_writer(form, path, job, metadata))
            for form, path in paths.items()
        ]
        for batch in regroup(batches, row_group_rows(job)):
            for writer in writers:
                writer.add(batch)
            tally.count(batch, schema)
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
    first, *others = (
        FeatureMoments.of(column.name, tally.moments.get(column.name, Moments.empty(column.bands)))
        for column in job.schema.features
    )
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
        count=first.count,
        mean=first.mean,
        m2=first.m2,
        low=first.low,
        high=first.high,
        distribution=tally.distribution.total(),
        others=tuple(others),
    )
