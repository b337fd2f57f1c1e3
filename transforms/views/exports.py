"""Views of a snapshot in the layouts that other tools expect, shard by shard.

A view's file is a pure function of one shard, so a retry does no harm. If the file has the same
bytes as the shard, it is a hard link on a local disk, and a copy elsewhere. If not, the rows are
encoded again. The launcher writes the view's description last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.naming import shard_number
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.normalization import (
    BandsOf,
    Normalization,
    banded,
    measure_recordings,
    standardize,
    standardize_chunks,
    standardize_recordings,
    valid_of,
)
from melmill.transforms.rows.parquet import read_rows, read_schema
from melmill.transforms.rows.schema import Float32Array, RowBatch, RowSchema
from melmill.transforms.rows.summaries import FileEntry
from melmill.transforms.rows.tfds import FileFormat, shard_file
from melmill.transforms.shards.tally import Tally
from melmill.transforms.store.folders import Store
from melmill.transforms.views.formats import (
    write_array_record,
    write_numpy,
    write_parquet,
    write_tar,
    write_tfrecord,
)
from melmill.transforms.views.kept_rows import counted, kept_rows, write_counts
from melmill.transforms.views.publishing import published_rows

#: Layouts that TFDS reads, and TFDS's names of their file formats.
TFDS_FORMATS: Mapping[str, FileFormat] = {"tfds": "tfrecord", "arrayrecord": "array_record"}

#: Layouts of views.
ExportFormat = Literal["tfds", "hf", "webdataset", "arrayrecord", "numpy"]


def check_format(name: str) -> ExportFormat:
    """Return the name of a format; raise ``ConfigError`` if there is no such format."""
    allowed = get_args(ExportFormat)
    if name not in allowed:
        raise ConfigError(f"--format {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(ExportFormat, name)


@dataclass(frozen=True, slots=True)
class ExportShard:
    """One shard of a snapshot, and its place among the shards of its split.

    Attributes
    ----------
    split
        Split of the shard.
    number, count
        Number of the shard in its split, from 0, and number of shards in the split.
    rows
        Number of rows in the view.
    parquet, tfrecord
        Files of the shard; ``None`` if there is no TFRecord file.
    name
        Name of the shard in the snapshot.
    refused
        Identifiers of the recordings whose rows are left out of the view.
    """

    split: str
    number: int
    count: int
    rows: int
    parquet: FileEntry
    tfrecord: FileEntry | None
    name: str = ""
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportJob:
    """The description of one export: a snapshot, and the view to write.

    Attributes
    ----------
    dataset, index
        Store of the dataset, and index of the snapshot.
    output
        Folder of the view.
    format, name
        Layout of the view, and the view's name in it.
    features
        Names of the features that are arrays.
    normalize
        Normalisation of the features that have bands.
    bands
        Mean and standard deviation of each band over the training split, by feature.
    select
        Expression over measures; only the recordings for which it is true are in the view. ``""``
        keeps all.
    publish_root
        Folder to which the view's URIs are relative; ``""`` to keep URIs as they are.
    progress
        Address at which the launcher listens; ``""`` if it does not listen.
    """

    dataset: Store
    index: str
    output: Store
    format: ExportFormat
    name: str
    normalize: Normalization = "none"
    features: tuple[str, ...] = ("mel",)
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    select: str = ""
    publish_root: str = ""
    progress: str = ""


#: Moments of recordings with rows in more than one shard.
SharedMoments = Mapping[BandsOf, Moments]


def file_names(shard: ExportShard, job: ExportJob) -> list[str]:
    """Return the names of the files for a shard, relative to the view.

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
        "numpy": [*(f"{stem}.{name}.npy" for name in job.features), f"{stem}.jsonl"],
    }[job.format]


def export_shard(
    shard: ExportShard, job: ExportJob, shared: SharedMoments | None = None
) -> list[str]:
    """Write the view's files for one shard; return their names.

    Parameters
    ----------
    shard, job
        Shard and export.
    shared
        Moments of recordings with rows in several shards, for ``normalize: per_recording``.

    Raises
    ------
    DatasetError
        If the shard is missing or damaged, or the view cannot be written.
    """
    names = file_names(shard, job)
    same_file = {"hf": shard.parquet, "tfds": shard.tfrecord}.get(job.format)
    is_same = job.normalize == "none" and not (shard.refused or job.publish_root)
    if same_file is not None and is_same:
        _link(same_file, names[0], job)
    else:
        _encode(shard, names, job, shared or {})
    return names


def measure_shared(
    shard: ExportShard, job: ExportJob, shared: Collection[str]
) -> dict[BandsOf, Moments]:
    """Return the moments of the shard's rows of recordings that other shards share.

    Raises
    ------
    DatasetError
        If the shard is missing or damaged; the message names it.
    """
    if not shared:
        return {}
    return measure_recordings(_only(shared, _batches(shard, job)), _schema(shard, job))


def _only(recording_ids: Collection[str], batches: Iterable[RowBatch]) -> Iterator[RowBatch]:
    for batch in batches:
        ids = batch.columns["recording_id"]
        rows = [row for row, name in enumerate(ids) if name in recording_ids]
        if rows:
            yield batch.take(rows)


def _schema(shard: ExportShard, job: ExportJob) -> RowSchema:
    with job.dataset.reading_shard(shard.parquet.name) as file:
        return read_schema(file)[0]


def _link(file: FileEntry, name: str, job: ExportJob) -> None:
    """Link or copy a shard's file into the view."""
    _require_whole(file, job)
    with job.output.scratch() as path:
        if not (job.dataset.is_local and job.output.is_local and _hard_link(file, path, job)):
            with job.dataset.reading_shard(file.name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        job.output.publish(path, name)


def _require_whole(file: FileEntry, job: ExportJob) -> None:
    try:
        size = job.dataset.size(file.name)
    except OSError as error:
        message = f"{job.dataset.root}: shard {file.name} cannot be read: {error}"
        raise DatasetError(message) from error
    if size != file.size_bytes:
        problem = "is missing" if size is None else f"has {size} bytes, not {file.size_bytes}"
        raise DatasetError(f"{job.dataset.root}: shard {file.name} {problem}")


def _hard_link(file: FileEntry, path: Path, job: ExportJob) -> bool:
    # A hard link fails on another disk, or on a disk without hard links. The file is then
    # copied, and the copy shows any other error.
    with suppress(OSError):
        # Resolve symbolic links first: a relative link would point elsewhere from the view.
        os.link(os.path.realpath(job.dataset.path(file.name)), path)
        return True
    return False


def _encode(shard: ExportShard, names: list[str], job: ExportJob, shared: SharedMoments) -> None:
    writers: dict[str, Callable[..., None]] = {
        "tfds": write_tfrecord,
        "hf": write_parquet,
        "webdataset": write_tar,
        "arrayrecord": write_array_record,
        "numpy": write_numpy,
    }
    _require_whole(shard.parquet, job)
    schema = _schema(shard, job)
    with ExitStack() as stack:
        paths = [stack.enter_context(job.output.scratch()) for _ in names]
        tally = Tally()
        batches = _normalized(_counted(shard, job, tally, schema), schema, shard, job, shared)
        writers[job.format](schema, shard.rows, batches, *paths)
        for path, name in zip(paths, names, strict=True):
            job.output.publish(path, name)
    if shard.refused:
        write_counts(job.output, shard.name, shard.split, tally, schema)


def _counted(
    shard: ExportShard, job: ExportJob, tally: Tally, schema: RowSchema
) -> Iterator[RowBatch]:
    batches = _batches(shard, job)
    return counted(batches, tally, schema) if shard.refused else batches


def _batches(shard: ExportShard, job: ExportJob) -> Iterator[RowBatch]:
    rows = 0
    with job.dataset.reading_shard(shard.parquet.name) as file:
        for batch in published_rows(kept_rows(read_rows(file), shard.refused), job.publish_root):
            rows += batch.rows
            yield batch
        if rows != shard.rows:
            raise ValueError(f"{rows} rows, but {shard.rows} were written")


def _normalized(
    batches: Iterable[RowBatch],
    schema: RowSchema,
    shard: ExportShard,
    job: ExportJob,
    shared: SharedMoments,
) -> Iterator[RowBatch]:
    normalize = _normalizer(schema, shard, job, shared)
    for batch in batches:
        normalized = {column.name: normalize(batch, column) for column in banded(schema)}
        yield replace(batch, features={**batch.features, **normalized})


def _normalizer(
    schema: RowSchema, shard: ExportShard, job: ExportJob, shared: SharedMoments
) -> Callable[[RowBatch, FeatureColumn], Float32Array]:
    if job.normalize == "global":
        return lambda batch, own: standardize(batch.features[own.name], *job.bands[own.name])
    if job.normalize == "per_chunk":
        return lambda batch, own: standardize_chunks(batch.features[own.name], valid_of(batch, own))
    if job.normalize == "per_recording":
        # A recording's mean is known only after its last row, so the shard is read twice.
        moments = measure_recordings(_batches(shard, job), schema) | dict(shared)
        how = {"with_variants": schema.with_variants}
        return lambda batch, own: standardize_recordings(batch, own.name, moments, **how)
    return lambda batch, own: batch.features[own.name]
