"""The Python interface; the command line has the same operations with the same names.

Each function checks all its arguments before any worker starts. It raises the errors of
:mod:`melmill.transforms.core.errors` and :mod:`melmill.pipelines.run.errors`. Functions that
start workers can be called in a notebook and from any thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from melmill.pipelines.config import NOTHING, Config, load_config
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.variants import pin_files
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.snapshot.delta import read_snapshot
from melmill.transforms.store.folders import Store, absolute_uri

if TYPE_CHECKING:
    from melmill.pipelines.add_columns import ColumnsResult
    from melmill.pipelines.duplicates import Duplicates
    from melmill.pipelines.export import Export
    from melmill.pipelines.extract import Extraction
    from melmill.pipelines.snapshots.verify import Verification
    from melmill.transforms.patterns.results import Patterns
    from melmill.transforms.plan.job import ExtractJob
    from melmill.transforms.views.exports import ExportJob

#: A recipe: the path of a YAML file, the name of a recipe that comes with melmill
#: (``"librosa"``), or the result of :func:`melmill.load_config`; ``None`` for the defaults.
Recipe: TypeAlias = Config | str | Path | None

#: Keys of the recipe to change: ``{"chunk.seconds": 5}``, or, as on the command line,
#: ``["chunk.seconds=5"]``.
Settings: TypeAlias = Mapping[str, object] | Sequence[str]

StorageOptions: TypeAlias = Mapping[str, object] | None

Job = TypeVar("Job", "ExtractJob", "ExportJob")


class ExtractedDataset(Dataset):
    """A dataset after a run, with the run's result.

    Attributes
    ----------
    extraction
        The run's result: whether it committed a new version, what it did with the recordings,
        how many recordings failed, and its metrics.
    """

    def __init__(self, extraction: Extraction) -> None:
        """Use the snapshot that the run has opened."""
        self._set_snapshot(extraction.opened)
        self.extraction = extraction

    def __repr__(self) -> str:
        """Return text that names the snapshot and counts its recordings and rows."""
        totals = self.extraction.totals
        counts = ", ".join(f"{number:,} {status}" for status, number in totals.recordings.items())
        result = "committed" if self.extraction.committed else "nothing to do"
        return f"{super().__repr__()[:-1]}: {result}; recordings: {counts}; {totals.rows:,} rows>"


def extract(
    catalogue: str | Path,
    output: str | Path,
    *,
    recipe: Recipe = None,
    settings: Settings = (),
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    overwrite: bool = False,
    single_writer: bool = False,
    progress: bool = False,
) -> ExtractedDataset:
    """Extract a catalogue into a dataset, and commit the dataset.

    If a call is interrupted, call it again: it continues from the finished shards. If the dataset
    was made from the same catalogue with the same recipe, the call refreshes it.

    Parameters
    ----------
    catalogue
        A directory, a glob, an audio file, or a table with a column ``uri``: a local path, or any
        URL that fsspec opens.
    output
        The dataset's folder: a new folder, or the folder of this dataset.
    recipe, settings
        The recipe for the features, and the keys of it to change: see :data:`Recipe`,
        :data:`Settings`.
    runner
        ``direct`` (this machine; the default), ``flink``, ``dataflow`` or ``prism``.
    runner_config
        A YAML file with Beam options for a runner, or the name of such a file that comes with
        melmill (``"flink-local"``).
    beam_options
        Options for Beam itself, as on a command line.
    workers
        Number of worker processes of the runner ``direct``; 0 for one process per core, and none
        for a small job.
    overwrite
        Whether to replace a dataset that was made from another catalogue or recipe.
    single_writer
        Whether you guarantee that no other run writes to `output` at the same time. Needed on
        object stores that let two runs overwrite each other's commits.
    progress
        Whether to show the progress on standard error.

    Returns
    -------
    ExtractedDataset
        The dataset, opened, and the run's result.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    ConflictError
        Another run committed first; nothing of this run is left.
    TooManyFailuresError
        More recordings failed than ``limits.max_failure_ratio`` allows; nothing was committed.
    LostWorkerError
        Worker processes were killed in every attempt; call again to continue.
    NothingSubmittedError
        The Beam options asked for a check or a template only.
    """
    # First, because the rest imports Beam.
    chosen = pin_files(read_recipe(recipe, settings), str(catalogue))
    from melmill.pipelines.extract import extract as run

    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(output))
    with _showing_progress("extract", job, progress) as job_with_progress:
        how = {"overwrite": overwrite, "single_writer": single_writer}
        return ExtractedDataset(run(job_with_progress, chosen.as_dict(), options, **how))


def measure(
    catalogue: str | Path,
    output: str | Path,
    *,
    recipe: Recipe = None,
    settings: Settings = (),
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    overwrite: bool = False,
    single_writer: bool = False,
    progress: bool = False,
) -> ExtractedDataset:
    """Measure a catalogue: make a dataset without rows, whose index has the readings.

    :func:`refresh` with another ``select`` then extracts recordings without measuring them again.

    Parameters
    ----------
    catalogue
        See :func:`extract`.
    output
        A new folder, or a dataset that was measured before.
    recipe, settings, runner, runner_config, beam_options, workers, overwrite, single_writer
        See :func:`extract`.
    progress
        See :func:`extract`.

    Returns
    -------
    ExtractedDataset
        The dataset, opened, and the run's result.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    TooManyFailuresError
        More recordings failed than ``limits.max_failure_ratio`` allows; nothing was committed.
    """
    chosen = read_recipe(recipe, settings)
    if chosen.select not in (None, NOTHING):
        raise ConfigError(
            f"select: {chosen.select!r}: melmill measure selects nothing; leave it out, and give "
            "it to melmill refresh"
        )
    if chosen.quality == "off":
        raise ConfigError("quality: off: melmill measure needs basic, full or a list of meters")
    store = open_store(output, dict(chosen.output.storage_options))
    snapshot = read_snapshot(store)
    if snapshot is not None and snapshot.recipe["select"] != NOTHING and not overwrite:
        raise DatasetError(
            f"output {store.root}: holds a dataset with rows, and measuring alone would remove "
            "them; choose another output, or let melmill refresh measure it (--set quality=full)"
        )
    return extract(
        catalogue,
        output,
        recipe=chosen.model_copy(update={"select": NOTHING}),
        runner=runner,
        runner_config=runner_config,
        beam_options=beam_options,
        workers=workers,
        overwrite=overwrite,
        single_writer=single_writer,
        progress=progress,
    )


def refresh(
    catalogue: str | Path,
    dataset: str | Path,
    *,
    recipe: Recipe = None,
    settings: Settings = (),
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    retry_failed: bool = False,
    allow_removals: bool = False,
    metrics_file: str | Path | None = None,
    single_writer: bool = False,
    progress: bool = False,
) -> ExtractedDataset:
    """Update a dataset from its catalogue; only what changed is computed.

    Parameters
    ----------
    catalogue, dataset
        See :func:`extract`.
    recipe
        A new recipe; ``None`` for the dataset's recipe.
    settings, runner, runner_config, beam_options, workers, single_writer, progress
        See :func:`extract`.
    retry_failed
        Whether to retry all failed recordings, whatever the cause of the failure.
    allow_removals
        Whether this run may remove more than ``refresh.max_removed_ratio``.
    metrics_file
        The file to write the run's metrics to, for Prometheus' textfile collector.

    Returns
    -------
    ExtractedDataset
        The dataset, opened, and the run's result.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    ConflictError
        Another run committed first; nothing of this run is left.
    TooManyFailuresError
        More recordings failed than ``limits.max_failure_ratio`` allows; nothing was committed.
    """
    # First, because the rest imports Beam.
    chosen = pin_files(recipe_of_dataset(dataset, recipe, settings), str(catalogue))
    from melmill.pipelines.prometheus import metrics_writer
    from melmill.pipelines.refresh import refresh as run
    from melmill.pipelines.run_records import recording_run

    options = _beam_options(runner, workers, beam_options, runner_config)
    store = open_store(dataset, dict(chosen.output.storage_options))
    publish = metrics_writer(None if metrics_file is None else Path(metrics_file))
    with recording_run(store, str(catalogue), publish) as set_result:
        job = make_job(chosen, str(catalogue), str(dataset))
        job = _with_refresh_options(job, chosen, retry_failed, allow_removals)
        with _showing_progress("refresh", job, progress) as job_with_progress:
            extraction = run(
                job_with_progress, chosen.as_dict(), options, single_writer=single_writer
            )
        set_result(extraction)
    return ExtractedDataset(extraction)


def plan_refresh(
    catalogue: str | Path,
    dataset: str | Path,
    *,
    recipe: Recipe = None,
    settings: Settings = (),
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    retry_failed: bool = False,
    allow_removals: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Return what :func:`refresh` would do, without doing it; reads headers, decodes no audio.

    Parameters
    ----------
    catalogue, dataset, recipe, settings, runner, runner_config, beam_options, workers
        See :func:`refresh`.
    retry_failed, allow_removals, progress
        See :func:`refresh`.

    Returns
    -------
    dict
        The values that ``melmill refresh --plan --json`` prints.
    """
    chosen = pin_files(recipe_of_dataset(dataset, recipe, settings), str(catalogue))
    from melmill.pipelines.refresh import plan_refresh as run

    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(dataset))
    job = _with_refresh_options(job, chosen, retry_failed, allow_removals)
    with _showing_progress("plan", job, progress) as job_with_progress:
        return run(job_with_progress, chosen.as_dict(), options)


def plan(
    catalogue: str | Path,
    output: str | Path = "",
    *,
    recipe: Recipe = None,
    settings: Settings = (),
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Return what :func:`extract` would do and cost; reads headers, decodes no audio.

    Parameters
    ----------
    catalogue
        See :func:`extract`.
    output
        The dataset's folder; needed only if workers on other machines must write the plan to it.
    recipe, settings, runner, runner_config, beam_options, workers, progress
        See :func:`extract`.

    Returns
    -------
    dict
        The values that ``melmill plan --json`` prints: ``recordings`` by what would be done with
        them, ``chunks``, ``rows`` and ``shards`` by split, ``seconds`` of audio,
        ``parquet_bytes``, ``cpu_seconds``, ``wall_seconds`` (how long it takes on this machine),
        ``costs``, ``failures`` by cause, ``refused`` (why the extraction would commit nothing, or
        ``""``), ``split_warnings`` (which splits are empty or far from their share).
    """
    chosen = pin_files(read_recipe(recipe, settings), str(catalogue))
    from melmill.pipelines.plan import plan as run

    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(output))
    with _showing_progress("plan", job, progress) as job_with_progress:
        return run(job_with_progress, options)


def export(
    dataset: str | Path,
    output: str | Path,
    format: str,
    *,
    name: str | None = None,
    normalize: str = "none",
    select: str | None = None,
    storage_options: StorageOptions = None,
    output_storage_options: StorageOptions = None,
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    progress: bool = False,
) -> Export:
    """Export a dataset's current snapshot in another library's format.

    If the recipe has ``catalogue.publish_root``, URIs are relative to this folder.

    Parameters
    ----------
    dataset
        A dataset's folder.
    output
        An empty or new folder.
    format
        ``tfds``, ``hf`` (Hugging Face), ``webdataset``, ``arrayrecord`` or ``numpy``.
    name
        The export's name; ``None`` for the name of the dataset's folder.
    normalize
        ``none``, ``global``, ``per_chunk`` or ``per_recording``: how to bring each mel band to
        mean 0 and standard deviation 1.
    select
        An expression over measures, such as ``"clipping.share < 0.001 and not channels.dead"``:
        only the recordings for which it is true are exported. ``None`` for all.
    storage_options, output_storage_options
        Options of fsspec for the stores of the dataset and of the output.
    runner, runner_config, beam_options, workers, progress
        See :func:`extract`.

    Returns
    -------
    Export
        The names of the files and the numbers of rows, by split, and what ``select`` leaves out.

    Raises
    ------
    UserError
        An argument is wrong, the dataset lacks a measure, ``select`` refuses all recordings, or a
        recording is not below ``catalogue.publish_root``.
    """
    from melmill.pipelines.export import default_name
    from melmill.pipelines.export import export as run
    from melmill.transforms.rows.normalization import check_normalization
    from melmill.transforms.views.exports import ExportJob, check_format
    from melmill.transforms.views.selection_plan import check_select

    options = _beam_options(runner, workers, beam_options, runner_config)
    checked_format, normalization = check_format(format), check_normalization(normalize)
    source, target = (
        open_store(dataset, storage_options),
        open_store(output, output_storage_options),
    )
    view_name = name or default_name(str(dataset))
    job = ExportJob(
        source, "", target, checked_format, view_name, normalization, select=check_select(select)
    )
    with _showing_progress("export", job, progress) as job_with_progress:
        return run(job_with_progress, options)


def duplicates(
    dataset: str | Path,
    against: str | Path | None = None,
    *,
    storage_options: StorageOptions = None,
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    progress: bool = False,
) -> Duplicates:
    """Find the recordings of a dataset that sound the same; nothing is decoded.

    Parameters
    ----------
    dataset
        A dataset's folder. Its recipe's ``quality`` names ``acoustic``, so that its recordings have
        fingerprints.
    against
        Another dataset: find what the two datasets share instead.
    storage_options
        Options of fsspec for the store of the datasets.
    runner, runner_config, beam_options, workers, progress
        See :func:`extract`.

    Returns
    -------
    Duplicates
        The groups of recordings that sound the same, and all matches.
    """
    from melmill.pipelines.duplicates import find_duplicates
    from melmill.pipelines.run.progress import showing_progress

    options = _beam_options(runner, workers, beam_options, runner_config)
    folders = [dataset] if against is None else [dataset, against]
    stores = [open_store(folder, storage_options) for folder in folders]
    with showing_progress("duplicates", quiet=not progress) as address:
        return find_duplicates(stores, options, address)


def patterns(
    dataset: str | Path,
    *,
    like: str | None = None,
    clusters: int | None = None,
    feature: str | None = None,
    top: int = 20,
    split: str | None = None,
    storage_options: StorageOptions = None,
    progress: bool = False,
) -> Patterns:
    """List the most unusual recordings of a dataset, or those most like a recording.

    The features in the rows are compared; nothing is decoded.

    Parameters
    ----------
    dataset
        A dataset's folder.
    like
        A recording to compare with: its URI, the end of its URI, or its id. ``None`` lists the
        most unusual recordings and chunks.
    clusters
        The number of clusters to divide the recordings into; ``None`` for none.
    feature
        The feature to compare, a spectrogram or an embedding; ``None`` for the first feature.
    top
        The number of recordings and of chunks to list.
    split
        The split to read; ``None`` for all splits.
    storage_options
        Options of fsspec for the store of the dataset.
    progress
        Whether to show the progress on standard error.

    Returns
    -------
    Patterns
        The listed recordings and chunks, and the clusters.
    """
    from melmill.pipelines.patterns import find_patterns
    from melmill.pipelines.run.progress import counting

    store = open_store(dataset, storage_options)
    with counting("patterns", "chunks", quiet=not progress) as report:
        return find_patterns(
            store,
            like=like,
            clusters=clusters,
            feature=feature,
            top=top,
            split=split,
            report=report,
        )


def add_columns(
    dataset: str | Path,
    table: str | Path | None = None,
    *,
    on: str = "recording_id",
    columns: Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    replace: bool = False,
    update: bool = False,
    ignore_unknown: bool = False,
    drop: Sequence[str] = (),
    storage_options: StorageOptions = None,
    table_storage_options: StorageOptions = None,
    single_writer: bool = False,
) -> ColumnsResult:
    """Add labels, scores or tokens to a dataset's current snapshot; no feature is rewritten.

    Parameters
    ----------
    dataset
        A dataset's folder.
    table
        A table of values: CSV, JSON lines or Parquet. ``None`` only with `drop`.
    on
        What a row of the table belongs to: ``recording_id`` or ``uri`` for a recording, ``row``
        for a row of the dataset, by ``recording_id`` and ``chunk_index`` (and ``channel``, if each
        channel has its own rows).
    columns
        The columns to add; ``None`` for all.
    types
        Types of columns, by name, which override the types in the table: ``string``, ``int64``,
        ``double``, ``bool``, or ``list<...>`` of these.
    replace
        Whether to replace all values of columns that were added before.
    update
        Whether to replace only the values of what the table has, and keep the others.
    ignore_unknown
        Whether to leave out rows that belong to nothing in the dataset.
    drop
        Added columns to drop, instead of adding any.
    storage_options, table_storage_options
        Options of fsspec for the stores of the dataset and of the table.
    single_writer
        See :func:`extract`.

    Returns
    -------
    ColumnsResult
        The new snapshot, and how many recordings have values.

    Raises
    ------
    UserError
        An argument or the table is wrong, or the dataset has such a column already; nothing was
        added.
    ConflictError
        Another run committed first; nothing was added.
    """
    from melmill.pipelines.add_columns import add_columns as run
    from melmill.pipelines.add_columns import drop_columns
    from melmill.pipelines.snapshots.additions import Addition, check_on

    store = open_store(dataset, storage_options)
    if (table is None) != bool(drop) or (replace and update):
        raise ConfigError(
            "add-columns: give a table, or the names of columns to drop; and only one of replace "
            "and update"
        )
    if table is None:
        return drop_columns(store, list(drop), single_writer=single_writer)
    addition = Addition(
        str(table),
        check_on(on),
        tuple(columns or ()),
        dict(types or {}),
        mode="replace" if replace else "update" if update else "add",
        ignore_unknown=ignore_unknown,
        storage_options=tuple((table_storage_options or {}).items()),
    )
    return run(store, addition, single_writer=single_writer)


def verify(
    dataset: str | Path,
    *,
    sample: int = 200,
    seed: int = 0,
    storage_options: StorageOptions = None,
    catalogue_storage_options: StorageOptions = None,
    progress: bool = False,
) -> Verification:
    """Recompute a sample of rows from the source recordings with librosa, and compare them.

    Parameters
    ----------
    dataset
        A dataset's folder.
    sample
        Number of rows to draw at random.
    seed
        Seed of the draw.
    storage_options, catalogue_storage_options
        Options of fsspec for the stores of the dataset and of the recordings.
    progress
        Whether to show the progress on standard error.

    Returns
    -------
    Verification
        ``passed``, and the differences by audio format.
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.snapshots.verify import verify as run

    store = open_store(dataset, storage_options)
    catalogue_options = tuple((catalogue_storage_options or {}).items())
    with counting("verify", "rows", quiet=not progress) as report:
        return run(store, sample, seed, report, catalogue_options)


def open_dataset(
    path: str | Path, version: int | None = None, storage_options: StorageOptions = None
) -> Dataset:
    """Open a dataset's current snapshot, or an earlier one; see :class:`Dataset`."""
    return Dataset(path, storage_options, version)


def read_recipe(recipe: Recipe, settings: Settings, stored: dict[str, Any] | None = None) -> Config:
    """Read a recipe, apply the settings, and check the result.

    Parameters
    ----------
    recipe, settings
        See :data:`Recipe`, :data:`Settings`.
    stored
        The recipe that a dataset was made with; used if `recipe` is ``None``.
    """
    settings = _as_list(settings)
    if isinstance(recipe, Config):
        return load_config(None, settings, recipe.as_dict(secrets=True))
    return load_config(recipe, settings, stored)


def _as_list(settings: Settings) -> Sequence[str]:
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    if isinstance(settings, str):
        raise ConfigError(f"settings: {settings!r}: must be a mapping, or a list of key=value")
    return settings


#: Beginning of the settings that a dataset is opened with.
_ACCESS = ("output.storage_options", "output=")


def recipe_of_dataset(dataset: str | Path, recipe: Recipe, settings: Settings) -> Config:
    """Return the recipe that the caller gave, or else the recipe of the dataset."""
    if recipe is not None:
        return read_recipe(recipe, settings)
    # The other settings may need the dataset's recipe, which is not read yet.
    access = [setting for setting in _as_list(settings) if setting.startswith(_ACCESS)]
    store = open_store(dataset, dict(read_recipe(None, access).output.storage_options))
    current = read_snapshot(store) if "_delta_log" in store.top_names() else None
    return read_recipe(None, settings, current.recipe if current else None)


def open_store(root: str | Path, storage_options: StorageOptions = None) -> Store:
    """Return the store for a folder on a disk or in an object store."""
    return Store(absolute_uri(str(root)), tuple((storage_options or {}).items()))


def make_job(recipe: Config, catalogue: str, output: str) -> ExtractJob:
    """Open the catalogue, and return the job for the workers."""
    from melmill.pipelines.extract import make_job, resolve_catalogue

    store = open_store(output, dict(recipe.output.storage_options))
    return make_job(recipe, resolve_catalogue(catalogue, recipe), store)


@contextlib.contextmanager
def _showing_progress(title: str, job: Job, progress: bool) -> Iterator[Job]:
    """Yield the job with an address for the workers' progress reports; show them if asked."""
    from melmill.pipelines.run.progress import showing_progress

    with showing_progress(title, quiet=not progress) as address:
        yield dataclasses.replace(job, progress=address)


def _with_refresh_options(
    job: ExtractJob, recipe: Config, retry_failed: bool, allow_removals: bool
) -> ExtractJob:
    spec = dataclasses.replace(recipe.refresh.spec(), retry_failed=retry_failed)
    if allow_removals:
        spec = dataclasses.replace(spec, max_removed_ratio=1.0)
    return dataclasses.replace(job, refresh=spec)


def _beam_options(
    runner: str | None, workers: int, extra: Sequence[str], config: str | Path | None
) -> Any:
    from melmill.pipelines.run.options import pipeline_options

    return pipeline_options(runner, workers, extra, None if config is None else str(config))
