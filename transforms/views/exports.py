"""Views of a snapshot in the layouts that other tools expect, shard by shard.

A view's file is a pure function of one shard, so making it twice does no harm. Where the
bytes are the shard's own it is a link on a local disk, else a copy; otherwise the rows are
encoded anew. What describes the view is written last, by the launcher.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.naming import shard_number
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.normalization import (
    Normalization,
    measure_recordings,
    standardize,
    standardize_chunks,
    standardize_recordings,
)
from melmill.transforms.rows.parquet import ParquetShard, read_rows, read_schema
from melmill.transforms.rows.schema import Float32Array, RowBatch, RowSchema
from melmill.transforms.rows.summaries import FileEntry
from melmill.transforms.rows.tf_example import encode_examples
from melmill.transforms.rows.tfds import FileFormat, shard_file
from melmill.transforms.rows.tfrecord import TFRecordShard
from melmill.transforms.store.folders import Store

#: The layouts that are TFDS's, and how it calls their files.
TFDS_FORMATS: Mapping[str, FileFormat] = {"tfds": "tfrecord", "arrayrecord": "array_record"}

#: What a view is made for.
ExportFormat = Literal["tfds", "hf", "webdataset", "arrayrecord", "numpy"]


def check_format(name: str) -> ExportFormat:
    """Give a format's name back; ``ConfigError`` where there is none of that name."""
    allowed = get_args(ExportFormat)
    if name not in allowed:
        raise ConfigError(f"--format {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(ExportFormat, name)


@dataclass(frozen=True, slots=True)
class ExportShard:
    """One shard of a snapshot, and which of its split it becomes.

    Attributes
    ----------
    number, count
        Its place among the split's shards, from 0, and how many there are.
    """

    split: str
    number: int
    count: int
    rows: int
    parquet: FileEntry
    tfrecord: FileEntry | None


@dataclass(frozen=True, slots=True)
class ExportJob:
    """Which snapshot becomes which view.

    Attributes
    ----------
    dataset, index
        The snapshot.
    output
        The view's folder.
    format, name
        The layout, and what the view is called in it.
    normalize
        What is done to ``mel``.
    mean, std
        Of each mel band over the training split.
    """

    dataset: Store
    index: str
    output: Store
    format: ExportFormat
    name: str
    normalize: Normalization = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    progress: str = ""


#: Moments of recordings of which other shards hold rows, too; by ``recording_id``.
SharedMoments = Mapping[str, Moments]


def file_names(shard: ExportShard, job: ExportJob) -> list[str]:
    """Name the files that a shard becomes, relative to the view.

    Examples
    --------
    >>> shard = ExportShard("train", 1, 12, 9, FileEntry("a", 1, ""), None)
    >>> file_names(shard, ExportJob(Store("a"), "", Store("b"), "hf", "songs"))
    ['data/train-00001-of-00012.parquet']
    """
    if job.format in TFDS_FORMATS:
        form = TFDS_FORMATS[job.format]
        return [shard_file(job.name, shard.split, shard.number, shard.count, form)]
    stem = f"{shard.split}-{shard_number(shard.number, shard.count)}"
    return {
        "hf": [f"data/{stem}.parquet"],
        "webdataset": [f"{stem}.tar"],
        "numpy": [f"{stem}.mel.npy", f"{stem}.jsonl"],
    }[job.format]


def export_shard(
    shard: ExportShard, job: ExportJob, shared: SharedMoments | None = None
) -> list[str]:
    """Write what one shard becomes; give the names of the files.

    Parameters
    ----------
    shard, job
        What of what.
    shared
        For ``normalize: per_recording``, of the recordings that lie in several shards.

    Raises
    ------
    DatasetError
        The shard is missing or damaged, or the view cannot be written.
    """
    names = file_names(shard, job)
    same = {"hf": shard.parquet, "tfds": shard.tfrecord}.get(job.format)
    if same is not None and job.normalize == "none":
        _link(same, names[0], job)
    else:
        _encode(shard, names, job, shared or {})
    return names


def measure_shared(
    shard: ExportShard, job: ExportJob, shared: Collection[str]
) -> dict[str, Moments]:
    """Measure the recordings of a shard that lie in others, too; ``DatasetError`` names it."""
    return measure_recordings(_only(shared, _batches(shard, job))) if shared else {}


def _only(recording_ids: Collection[str], batches: Iterable[RowBatch]) -> Iterator[RowBatch]:
    for batch in batches:
        ids = batch.columns["recording_id"]
        rows = [row for row, name in enumerate(ids) if name in recording_ids]
        if rows:
            yield RowBatch({"recording_id": [ids[row] for row in rows]}, batch.mel[rows])


def _link(file: FileEntry, name: str, job: ExportJob) -> None:
    _require_whole(file, job)
    with job.output.scratch() as path:
        if not (job.dataset.is_local and job.output.is_local and _hard_link(file, path, job)):
            with job.dataset.reading_shard(file.name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        job.output.publish(path, name)


def _require_whole(file: FileEntry, job: ExportJob) -> None:
    try:
        found = job.dataset.size(file.name)
    except OSError as error:
        message = f"{job.dataset.root}: shard {file.name} cannot be read: {error}"
        raise DatasetError(message) from error
    if found != file.size_bytes:
        said = "is missing" if found is None else f"has {found} bytes, not {file.size_bytes}"
        raise DatasetError(f"{job.dataset.root}: shard {file.name} {said}")


def _hard_link(file: FileEntry, path: Path, job: ExportJob) -> bool:
    # Another disk, or one without hard links: copied instead, and errors come up there.
    with suppress(OSError):
        # What a symbolic link leads to: the link itself may lead elsewhere from here.
        os.link(os.path.realpath(job.dataset.path(file.name)), path)
        return True
    return False


def _encode(shard: ExportShard, names: list[str], job: ExportJob, shared: SharedMoments) -> None:
    writers: dict[str, Callable[..., None]] = {
        "tfds": _write_tfrecord,
        "hf": _write_parquet,
        "webdataset": _write_tar,
        "arrayrecord": _write_array_record,
        "numpy": _write_numpy,
    }
    _require_whole(shard.parquet, job)
    with job.dataset.reading_shard(shard.parquet.name) as file:
        schema, _ = read_schema(file)
    with ExitStack() as stack:
        paths = [stack.enter_context(job.output.scratch()) for _ in names]
        batches = _normalized(shard, job, shared)
        writers[job.format](schema, shard.rows, batches, *paths)
        for path, name in zip(paths, names, strict=True):
            job.output.publish(path, name)


def _batches(shard: ExportShard, job: ExportJob) -> Iterator[RowBatch]:
    rows = 0
    with job.dataset.reading_shard(shard.parquet.name) as file:
        for batch in read_rows(file):
            rows += batch.rows
            yield batch
        if rows != shard.rows:
            raise ValueError(f"{rows} rows, and {shard.rows} were written")


def _normalized(shard: ExportShard, job: ExportJob, shared: SharedMoments) -> Iterator[RowBatch]:
    normalize = _normalizer(shard, job, shared)
    for batch in _batches(shard, job):
        yield replace(batch, mel=normalize(batch))


def _normalizer(
    shard: ExportShard, job: ExportJob, shared: SharedMoments
) -> Callable[[RowBatch], Float32Array]:
    if job.normalize == "global":
        return lambda batch: standardize(batch.mel, job.mean, job.std)
    if job.normalize == "per_chunk":
        return lambda batch: standardize_chunks(batch.mel)
    if job.normalize == "per_recording":
        # A recording's mean is known when its last row was read: the shard is read twice.
        moments = measure_recordings(_batches(shard, job)) | dict(shared)
        return lambda batch: standardize_recordings(batch, moments)
    return lambda batch: batch.mel


def _write_parquet(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    with ParquetShard(path, schema) as writer:
        for batch in batches:
            writer.add(batch)


def _write_array_record(
    schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path
) -> None:
    """Write the same Examples as in TFRecord, each to be read by its number."""
    # zstd 1 is twice as fast as the default, for one per cent of space.
    writer = array_record_module().ArrayRecordWriter(str(path), "group_size:1,zstd:1")
    try:
        for batch in batches:
            for example in encode_examples(batch, schema):
                writer.write(example)
    finally:
        writer.close()


def array_record_module() -> Any:
    """Import the library that writes ArrayRecord; ``ConfigError`` says how to have it."""
    try:
        from array_record.python import array_record_module as found
    except ImportError as error:
        how = "pip install 'melmill[arrayrecord]'"
        raise ConfigError(f"--format arrayrecord: {error}: {how}") from error
    return found


def _write_tfrecord(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    with TFRecordShard(path, schema) as writer:
        for batch in batches:
            writer.add(batch)


def _write_numpy(
    schema: RowSchema, rows: int, batches: Iterator[RowBatch], mel_path: Path, rows_path: Path
) -> None:
    """Write ``mel`` as one array, which maps into memory, and the rest as JSON lines."""
    shape = rows, schema.n_mels, schema.n_frames
    with mel_path.open("wb") as mel, rows_path.open("w", encoding="utf-8") as lines:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(mel, header)
        for batch in batches:
            mel.write(np.ascontiguousarray(batch.mel, "<f4").data)
            lines.writelines(f"{_json(row)}\n" for row in _plain_rows(batch))


def _write_tar(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    """Write a WebDataset shard: ``KEY.mel.npy`` and ``KEY.json`` of each row."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for batch in batches:
            for row, mel in zip(_plain_rows(batch), batch.mel, strict=True):
                key = f"{row['recording_id']}-{row['chunk_index']:06}"
                key += f"-{row['channel']}" if schema.per_channel else ""
                array = io.BytesIO()
                np.lib.format.write_array(array, mel, allow_pickle=False)
                _add(tar, f"{key}.mel.npy", array.getvalue())
                _add(tar, f"{key}.json", _json(row).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # The entry's time stays 0: the same shard is the same file.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _plain_rows(batch: RowBatch) -> Iterator[dict[str, Any]]:
    columns = {
        name: values.tolist() if isinstance(values, np.ndarray) else values
        for name, values in batch.columns.items()
    }
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _json(row: dict[str, Any]) -> str:
    finite = {name: _finite(value) for name, value in row.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """Give ``None`` for infinity, the level of digital silence, and NaN: JSON has neither."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
