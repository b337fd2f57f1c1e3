"""The export: a view of a dataset's current snapshot in the format of another library."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import apache_beam as beam

from melmill.pipelines.run.launch import is_dry_run, run_job
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.spectrograms import draw_spectrograms
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.export_shards import ExportShards, list_export_shards
from melmill.transforms.index.comparing import FEW_BYTES
from melmill.transforms.measures.expressions import selection_of
from melmill.transforms.measures.registry import meters_in, meters_of, quality_text, quality_with
from melmill.transforms.rows.tfds import TfdsShard, TfdsSplit, dataset_info
from melmill.transforms.rows.tfds import features as tfds_features
from melmill.transforms.snapshot.card import (
    PICTURE,
    band_statistics,
    features_json,
    statistics,
    to_json,
    view_card,
)
from melmill.transforms.snapshot.card_head import title
from melmill.transforms.snapshot.provenance import provenance
from melmill.transforms.snapshot.totals import Totals, training_split
from melmill.transforms.views.claiming import claim_output, record_output, release_output
from melmill.transforms.views.croissant import croissant
from melmill.transforms.views.exports import (
    TFDS_FORMATS,
    ExportJob,
    ExportShard,
    file_names,
)
from melmill.transforms.views.formats import array_record_module
from melmill.transforms.views.kept_rows import add_kept_rows
from melmill.transforms.views.publishing import published_catalogue, published_recipe, require_below
from melmill.transforms.views.selection_plan import LeftOut, Selected, select_rows, write_plan


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
    left_out
        The numbers of recordings and rows that ``select`` leaves out.
    added_columns
        The names of the dataset's added columns, which the view does not have.
    valid
        The column that counts the valid frames of the first feature; ``""`` if there is none.
    """

    job: ExportJob
    files: dict[str, list[str]]
    rows: dict[str, int]
    left_out: LeftOut = field(default_factory=LeftOut)
    added_columns: tuple[str, ...] = ()
    valid: str = ""


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
        There is no snapshot, a shard is missing or damaged, a recording is not below the recipe's
        ``publish_root``, or the output holds other files or cannot be written.
    ConfigError
        TFDS refuses the name, ArrayRecord's library is not installed, or the selection refuses all
        recordings or needs measures that the dataset does not have.
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
    features = tuple(column.name for column in opened.schema.features if not column.is_number)
    root = opened.snapshot.recipe.get("catalogue", {}).get("publish_root") or ""
    job = replace(job, index=opened.snapshot.index, features=features, publish_root=root)
    if job.normalize != "none" and not any(c.has_bands for c in opened.schema.features):
        raise ConfigError(
            f"--normalize {job.normalize}: {job.dataset.root} has no feature with bands: "
            f"{', '.join(c.name for c in opened.schema.features)}; leave the option out"
        )
    if job.normalize == "global":
        job = _with_band_statistics(job, opened)
    selected = _select(job, opened)
    if job.publish_root:
        require_below(job.dataset, job.index, job.publish_root)
    if not is_dry_run(options):
        claim_output(job)
        record_output(job, opened.snapshot.version)
        if selected is not None:
            write_plan(job, selected)
    brief = opened.totals.parquet_bytes <= FEW_BYTES
    run_job(build_pipeline, job, options, brief=brief)
    shards = list(list_export_shards(job))
    view = _sum_up(job, shards, selected)
    totals = opened.totals if selected is None else _totals(view, selected, opened)
    if job.format == "hf":
        for split, names in view.files.items():
            totals.split(split).parquet_bytes = sum(_size(job, name) for name in names)
    _describe(view, shards, _published(opened, job), totals)
    release_output(job)
    tables = opened.snapshot.side_tables
    return replace(
        view,
        added_columns=tuple(name for table in tables for name in table.columns),
        valid=next((c.valid for c in opened.schema.features if not c.is_number), ""),
    )


def build_pipeline(pipeline: beam.Pipeline, job: ExportJob) -> None:
    """Apply the transforms of an export."""
    stores = tuple((store.root, store.storage_options) for store in (job.dataset, job.output))
    start = pipeline | "CheckWorkers" >> CheckWorkers(stores)
    _ = start | "ExportShards" >> ExportShards(job)


def _with_band_statistics(job: ExportJob, opened: OpenSnapshot) -> ExportJob:
    first = opened.schema.features[0].name
    statistics_of_first = band_statistics(opened.totals)
    by_feature = {first: statistics_of_first, **statistics_of_first.get("features", {})}
    bands = {name: _mean_and_std(entry) for name, entry in by_feature.items()}
    return replace(job, bands=bands)


def _mean_and_std(entry: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return statistics of bands; without any valid frame, those that change no value."""
    if not entry["values_per_band"]:
        bands = len(entry["mean"])
        return [0.0] * bands, [1.0] * bands
    return entry["mean"], entry["std"]


def _select(job: ExportJob, opened: OpenSnapshot) -> Selected | None:
    """Return what the selection keeps; ``None`` without a selection."""
    if not job.select:
        return None
    _require_measured(job.select, opened)
    selected = select_rows(job, opened.parts)
    if not selected.totals.recordings:
        raise ConfigError(
            f"--select {job.select!r}: refuses all {selected.left_out.recordings:,} recordings of "
            f"{job.dataset.root} that have rows; their measures: "
            f"melmill.open({job.dataset.root!r}).recordings(['uri', 'measures'])"
        )
    return selected


def _require_measured(select: str, opened: OpenSnapshot) -> None:
    quality = opened.recipe.quality
    measured = {*meters_in(quality)}
    missing = [
        name for name in selection_of(select).measures if not {*meters_of([name])} <= measured
    ]
    if missing:
        needed = quality_text(quality_with(quality, meters_of(missing)))
        folders = opened.snapshot.catalogue, opened.store.root
        command = shlex.join(["melmill", "refresh", *folders, "--set", f"quality={needed}"])
        raise ConfigError(
            f"--select {select!r}: the recipe of {opened.store.root} has quality: "
            f"{quality_text(quality)}, which does not measure {', '.join(missing)}; measure it, "
            f"without computing any feature again: {command}"
        )


def _totals(view: Export, selected: Selected, opened: OpenSnapshot) -> Totals:
    """Return the totals of what is in a view; failures are those of the whole dataset."""
    totals = selected.totals
    others = {k: n for k, n in opened.totals.recordings.items() if k not in ("ok", "partial")}
    totals.recordings.update(others)
    add_kept_rows(totals, opened.shards(), selected.kept, view.job.output)
    return totals


def _published(opened: OpenSnapshot, job: ExportJob) -> OpenSnapshot:
    """Return the snapshot as a view describes it: without the folders above what is published."""
    if not job.publish_root:
        return opened
    catalogue = published_catalogue(opened.snapshot.catalogue, job.publish_root)
    recipe = published_recipe(opened.snapshot.configuration, job.publish_root)
    snapshot = replace(opened.snapshot, catalogue=catalogue, configuration=recipe)
    return OpenSnapshot(opened.store, snapshot).knowing(opened.totals, opened.schema)


def _check_name(job: ExportJob) -> None:
    try:
        dataset_info(job.name, "1.0.0", [])
    except ValueError as error:
        raise ConfigError(f"--name {job.name}: {error}") from None


def _sum_up(job: ExportJob, shards: list[ExportShard], selected: Selected | None) -> Export:
    files: defaultdict[str, list[str]] = defaultdict(list)
    rows: defaultdict[str, int] = defaultdict(int)
    for shard in shards:
        files[shard.split] += file_names(shard, job)
        rows[shard.split] += shard.rows
    left_out = selected.left_out if selected else LeftOut()
    return Export(job, dict(sorted(files.items())), dict(sorted(rows.items())), left_out)


def _describe(
    view: Export, shards: list[ExportShard], opened: OpenSnapshot, totals: Totals
) -> None:
    """Write the files that describe the view; they come last, since they make it readable."""
    job, schema = view.job, opened.schema
    if job.format == "hf":
        about = opened.snapshot, totals, schema, job.normalize
        names = view.files[training_split(view.files) or ""]
        picture = draw_spectrograms(job.output, names, opened.snapshot, schema)
        if picture:
            job.output.put(PICTURE, picture)
        sentence, has_picture = _left_out_sentence(view), bool(picture)
        card = view_card(view.files, *about, sentence, has_picture=has_picture)
        description = _description(view, opened)
        about_view = job.name, _version(opened), description, view.files, schema
        metadata = croissant(*about_view, provenance(totals))
        job.output.put("croissant.json", to_json(metadata))
        job.output.put("README.md", card)
    elif job.format in TFDS_FORMATS:
        features = tfds_features(schema, TFDS_FORMATS[job.format])
        job.output.put("features.json", to_json(features))
        job.output.put("dataset_info.json", to_json(_tfds_info(view, shards, opened)))
    else:
        metadata = {
            "name": job.name,
            **features_json(schema),
            "normalize": job.normalize,
            **_selection(view),
            "columns": schema.columns(),
            "splits": {
                split: {"rows": view.rows[split], "files": names}
                for split, names in view.files.items()
            },
            "statistics": statistics(totals),
        }
        job.output.put("dataset.json", to_json(metadata))


def _selection(view: Export) -> dict[str, Any]:
    job = view.job
    if not job.select:
        return {}
    # The statistics of the view are not those of the whole dataset, which normalised it.
    bands = {name: {"mean": mean, "std": std} for name, (mean, std) in job.bands.items()}
    normalized_by = {"normalized_by": bands} if bands else {}
    return {"select": job.select, "left_out": asdict(view.left_out), **normalized_by}


def _size(job: ExportJob, name: str) -> int:
    size = job.output.size(name)
    if size is None:
        raise DatasetError(
            f"output {job.output.root}: {name} was removed during the export; export again"
        )
    return size


def _tfds_info(view: Export, shards: list[ExportShard], opened: OpenSnapshot) -> Any:
    splits: defaultdict[str, list[TfdsShard]] = defaultdict(list)
    job = view.job
    for shard in shards:
        (name,) = file_names(shard, job)
        splits[shard.split].append(TfdsShard(shard.rows, _size(job, name)))
    described = [TfdsSplit(split, tuple(splits[split])) for split in sorted(splits)]
    description, file_format = _description(view, opened), TFDS_FORMATS[job.format]
    return dataset_info(
        job.name, _version(opened), described, description=description, file_format=file_format
    )


def _version(opened: OpenSnapshot) -> str:
    # TFDS keeps versions apart, so each snapshot has its own version.
    return f"1.0.{opened.snapshot.version}"


def _description(view: Export, opened: OpenSnapshot) -> str:
    job, parts = view.job, [title(opened.snapshot)]
    if job.normalize != "none":
        whole = " (by the whole dataset)" if job.select and job.bands else ""
        parts.append(f"normalised: {job.normalize}{whole}")
    if job.select:
        parts.append(f"select: {job.select} ({view.left_out} left out)")
    return "; ".join(parts)


def _left_out_sentence(view: Export) -> str:
    job = view.job
    if not job.select:
        return ""
    sentence = f"`select: {job.select}` leaves {view.left_out} of the dataset out."
    if job.normalize == "global":
        sentence += " The normalisation goes by the training split of the whole dataset."
    return sentence
