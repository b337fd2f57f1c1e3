"""The export: a view of a dataset's current snapshot in the format of another library."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from melmill.pipelines.run.launch import is_dry_run, run_job
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.export_shards import ExportShards, list_export_shards
from melmill.transforms.index.comparing import FEW_BYTES
from melmill.transforms.rows.tfds import TfdsShard, TfdsSplit, dataset_info
from melmill.transforms.rows.tfds import features as tfds_features
from melmill.transforms.snapshot.card import (
    band_statistics,
    features_json,
    statistics,
    title,
    to_json,
    view_card,
)
from melmill.transforms.store.folders import Store, absolute_uri
from melmill.transforms.store.own_files import is_own, remove_own
from melmill.transforms.views.croissant import croissant
from melmill.transforms.views.exports import (
    TFDS_FORMATS,
    ExportJob,
    ExportShard,
    file_names,
)
from melmill.transforms.views.formats import array_record_module
from melmill.transforms.views.written_exports import ExportRecord, write_export_record

_MARK = "staging/export.json"


@dataclass(frozen=True, slots=True)
class Export:
    """A finished view.

    Attributes
    ----------
    job
        The job that made the view.
    files
        The names of the files by split, in order.
    rows
        The numbers of rows by split.
    """

    job: ExportJob
    files: dict[str, list[str]]
    rows: dict[str, int]


def default_name(dataset: str) -> str:
    """Return a name for a dataset's folder that TFDS accepts.

    >>> default_name("s3://bucket/my-songs/"), default_name("2024")
    ('my_songs', 'dataset_2024')
    """
    folder = re.split(r"[/\\]", dataset.rstrip("/\\"))[-1]
    name = re.sub(r"\W+", "_", folder, flags=re.ASCII).strip("_")
    return name if re.match("[A-Za-z]", name) else f"dataset_{name}".rstrip("_")


def export(job: ExportJob, options: Any) -> Export:
    """Write the view, and return it; if the call is interrupted, call it again to continue.

    Parameters
    ----------
    job
        The export; this function sets its ``index``.
    options
        The options of Beam.

    Raises
    ------
    DatasetError
        There is no snapshot, a shard is missing or damaged, or the output holds other files or
        cannot be written.
    ConfigError
        TFDS refuses the name, or ArrayRecord's library is not installed.
    """
    if job.format in TFDS_FORMATS:
        _check_name(job)
    if job.format == "arrayrecord":
        array_record_module()
    opened = OpenSnapshot.current(job.dataset)
    if not opened.totals.rows:
        raise DatasetError(
            f"{job.dataset.root}: version {opened.snapshot.version} holds no rows, so there is "
            "nothing to export; refresh the dataset first"
        )
    features = tuple(column.name for column in opened.schema.features)
    job = replace(job, index=opened.snapshot.index, features=features)
    if job.normalize != "none" and not any(c.has_bands for c in opened.schema.features):
        raise ConfigError(
            f"--normalize {job.normalize}: {job.dataset.root} has no feature with bands: "
            f"{', '.join(features)}; leave the option out"
        )
    if job.normalize == "global":
        job = _with_band_statistics(job, opened)
    if not is_dry_run(options):
        _claim_output(job)
        _record(job, opened)
    brief = opened.totals.parquet_bytes <= FEW_BYTES
    run_job(build_pipeline, job, options, brief=brief)
    shards = list(list_export_shards(job))
    view = _sum_up(job, shards)
    _describe(view, shards, opened)
    job.output.remove(_MARK)
    remove_own(job.output, "staging")
    return view


def build_pipeline(pipeline: beam.Pipeline, job: ExportJob) -> None:
    """Apply the transforms of an export."""
    stores = tuple((store.root, store.storage_options) for store in (job.dataset, job.output))
    start = pipeline | "CheckWorkers" >> CheckWorkers(stores)
    _ = start | "ExportShards" >> ExportShards(job)


def _with_band_statistics(job: ExportJob, opened: OpenSnapshot) -> ExportJob:
    first, *_ = job.features
    statistics_of_first = band_statistics(opened.totals)
    by_feature = {first: statistics_of_first, **statistics_of_first.get("features", {})}
    bands = {name: (entry["mean"], entry["std"]) for name, entry in by_feature.items()}
    return replace(job, bands=bands)


def _check_name(job: ExportJob) -> None:
    try:
        dataset_info(job.name, "1.0.0", [])
    except ValueError as error:
        raise ConfigError(f"--name {job.name}: {error}") from None


def _claim_output(job: ExportJob) -> None:
    """Check that the folder is empty or holds an interrupted run of this export; mark it."""
    store = job.output
    settings = {"format": job.format, "name": job.name, "normalize": job.normalize}
    mark = json.dumps({"index": job.index, **settings}).encode()
    try:
        if store.size(_MARK) is not None:
            if store.read(_MARK) == mark:
                return
            raise DatasetError(
                f"output {store.root}: holds an unfinished export of another snapshot, or with "
                "another name, format or normalisation; remove the folder, or choose another"
            )
        if (foreign := next(_foreign(store), None)) is not None:
            raise DatasetError(
                f"output {store.root}: holds something else ({foreign}); "
                "choose an empty or new folder"
            )
        store.put(_MARK, mark)
    except OSError as error:
        raise DatasetError(f"output {store.root}: cannot be written: {error}") from error


def _record(job: ExportJob, opened: OpenSnapshot) -> None:
    """Record the view's location in the dataset, so that a takedown can list it."""
    snapshot = opened.snapshot
    output = absolute_uri(job.output.root)
    record = ExportRecord(output, job.format, snapshot.version, snapshot.index)
    try:
        write_export_record(job.dataset, record)
    except DatasetError as error:
        message = "%s: this export cannot be recorded, so no takedown will list it: %s"
        logging.getLogger("melmill").warning(message, job.dataset.root, error)


def _foreign(store: Store) -> Iterator[str]:
    # A run that was killed before it wrote its mark may have left scratch files: ignore them.
    return (name for name in store.names() if not is_own(name))


def _sum_up(job: ExportJob, shards: list[ExportShard]) -> Export:
    files: defaultdict[str, list[str]] = defaultdict(list)
    rows: defaultdict[str, int] = defaultdict(int)
    for shard in shards:
        files[shard.split] += file_names(shard, job)
        rows[shard.split] += shard.rows
    return Export(job, dict(sorted(files.items())), dict(sorted(rows.items())))


def _describe(view: Export, shards: list[ExportShard], opened: OpenSnapshot) -> None:
    """Write the files that describe the view; they come last, since they make it readable."""
    job, schema = view.job, opened.schema
    if job.format == "hf":
        card = view_card(view.files, opened.snapshot, opened.totals, schema, job.normalize)
        description = _description(job, opened)
        metadata = croissant(job.name, _version(opened), description, view.files, schema)
        job.output.put("croissant.json", to_json(metadata))
        job.output.put("README.md", card)
    elif job.format in TFDS_FORMATS:
        features = tfds_features(schema, TFDS_FORMATS[job.format])
        job.output.put("features.json", to_json(features))
        job.output.put("dataset_info.json", to_json(_tfds_info(job, shards, opened)))
    else:
        metadata = {
            "name": job.name,
            **features_json(schema),
            "normalize": job.normalize,
            "columns": schema.columns(),
            "splits": {
                split: {"rows": view.rows[split], "files": names}
                for split, names in view.files.items()
            },
            "statistics": statistics(opened.totals),
        }
        job.output.put("dataset.json", to_json(metadata))


def _tfds_info(job: ExportJob, shards: list[ExportShard], opened: OpenSnapshot) -> Any:
    splits: defaultdict[str, list[TfdsShard]] = defaultdict(list)
    for shard in shards:
        (name,) = file_names(shard, job)
        size = job.output.size(name)
        if size is None:
            raise DatasetError(
                f"output {job.output.root}: {name} was removed during the export; export again"
            )
        splits[shard.split].append(TfdsShard(shard.rows, size))
    described = [TfdsSplit(split, tuple(splits[split])) for split in sorted(splits)]
    description, file_format = _description(job, opened), TFDS_FORMATS[job.format]
    return dataset_info(
        job.name, _version(opened), described, description=description, file_format=file_format
    )


def _version(opened: OpenSnapshot) -> str:
    # TFDS keeps versions apart, so each snapshot has its own version.
    return f"1.0.{opened.snapshot.version}"


def _description(job: ExportJob, opened: OpenSnapshot) -> str:
    text = title(opened.snapshot)
    return text if job.normalize == "none" else f"{text}; normalised: {job.normalize}"
