"""What a Python program calls; the command line says the same in the same words.

Each function checks all that it is given before any worker starts, and raises the errors of
:mod:`melmill.transforms.core.errors` and :mod:`melmill.pipelines.run.errors`. The functions that
start workers may be called in a notebook and from any thread.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from melmill.pipelines.config import Config, load_config
from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.snapshot.delta import read_snapshot
from melmill.transforms.store.folders import Store, absolute_uri

if TYPE_CHECKING:
    from melmill.pipelines.export import Export
    from melmill.pipelines.extract import Extraction
    from melmill.pipelines.snapshots.verify import Verification
    from melmill.transforms.plan.job import ExtractJob
    from melmill.transforms.views.exports import ExportJob

#: A recipe: the path of a YAML file, the name of one that comes with melmill (``"librosa"``), or
#: one that :func:`melmill.load_config` has read; ``None`` for the defaults.
Recipe: TypeAlias = Config | str | Path | None

#: Keys of the recipe to change: ``{"chunk.seconds": 5}``, or as the command line has it,
#: ``["chunk.seconds=5"]``.
Settings: TypeAlias = Mapping[str, object] | Sequence[str]

StorageOptions: TypeAlias = Mapping[str, object] | None

Job = TypeVar("Job", "ExtractJob", "ExportJob")


class ExtractedDataset(Dataset):
    """A dataset as a run left it, and what the run did.

    Attributes
    ----------
    extraction
        Whether the run made a new version, what it did with the recordings, how many failed, and
        what it counted.
    """

    def __init__(self, extraction: Extraction) -> None:
        """Take the snapshot that is open already."""
        self._hold(extraction.opened)
        self.extraction = extraction

    def __repr__(self) -> str:
        """Say which snapshot it is, and what it holds."""
        totals = self.extraction.totals
        said = ", ".join(f"{number:,} {status}" for status, number in totals.recordings.items())
        done = "committed" if self.extraction.committed else "nothing to do"
        return f"{super().__repr__()[:-1]}: {done}; recordings: {said}; {totals.rows:,} rows>"


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
    """Extract a catalogue into a dataset, and commit it.

    Interrupted at any moment, the same call goes on from the shards that are finished. A dataset
    that was made from the same catalogue by the same recipe is refreshed.

    Parameters
    ----------
    catalogue
        A directory, a glob, an audio file, or a table with a column ``uri``: a local path, or any
        URL that fsspec opens.
    output
        The dataset's folder: a new one, or its own.
    recipe, settings
        How features are computed, and what of it to change: see :data:`Recipe`,
        :data:`Settings`.
    runner
        ``direct`` (this machine; the default), ``flink``, ``dataflow`` or ``prism``.
    runner_config
        YAML file of Beam's options for a runner, or the name of one that comes with melmill
        (``"flink-local"``).
    beam_options
        Options for Beam itself, as on a command line.
    workers
        Worker processes of the runner ``direct``; 0 for one on each core.
    overwrite
        Whether a dataset that was made from something else may be replaced.
    single_writer
        Whether you warrant that no other run writes there meanwhile, on object stores that let
        two runs overwrite each other's commits.
    progress
        Whether to show on standard error how far the run is.

    Returns
    -------
    ExtractedDataset
        The dataset, open, and what the run did.

    Raises
    ------
    UserError
        Something that its message says how to change.
    ConflictError
        Another run committed meanwhile; nothing of this one is left.
    TooManyFailuresError
        More recordings failed than ``limits.max_failure_ratio`` allows; nothing was committed.
    LostWorkerError
        Worker processes were killed in every attempt; the same call continues.
    NothingSubmittedError
        The options for Beam asked for a check or a template only.
    """
    from melmill.pipelines.extract import extract as run

    chosen = read_recipe(recipe, settings)
    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(output))
    with _showing_progress("extract", job, progress) as shown:
        how = {"overwrite": overwrite, "single_writer": single_writer}
        return ExtractedDataset(run(shown, chosen.as_dict(), options, **how))


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
    """Bring a dataset up to date with its catalogue: only the change is computed.

    Parameters
    ----------
    catalogue, dataset
        See :func:`extract`.
    recipe
        Another recipe than the dataset's own.
    settings, runner, runner_config, beam_options, workers, single_writer, progress
        See :func:`extract`.
    retry_failed
        Whether to try all recordings that failed once more, whatever the cause.
    allow_removals
        Whether this run may remove more than ``refresh.max_removed_ratio``.
    metrics_file
        Gets the run's metrics, for Prometheus' textfile collector.

    Returns
    -------
    ExtractedDataset
        The dataset, open, and what the run did.

    Raises
    ------
    UserError
        Something that its message says how to change.
    ConflictError
        Another run committed meanwhile; nothing of this one is left.
    TooManyFailuresError
        Nothing was committed.
    """
    from melmill.pipelines.refresh import refresh as run
    from melmill.pipelines.run_records import recording_run

    chosen = recipe_of_dataset(dataset, recipe, settings)
    options = _beam_options(runner, workers, beam_options, runner_config)
    store = open_store(dataset, dict(chosen.output.storage_options))
    metrics = None if metrics_file is None else Path(metrics_file)
    with recording_run(store, str(catalogue), metrics) as tell:
        job = make_job(chosen, str(catalogue), str(dataset))
        job = _how_far(job, chosen, retry_failed, allow_removals)
        with _showing_progress("refresh", job, progress) as shown:
            made = run(shown, chosen.as_dict(), options, single_writer=single_writer)
        tell(made)
    return ExtractedDataset(made)


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
    """Say what :func:`refresh` would do, and do nothing; reads headers, decodes nothing.

    Parameters
    ----------
    catalogue, dataset, recipe, settings, runner, runner_config, beam_options, workers
        See :func:`refresh`.
    retry_failed, allow_removals, progress
        See :func:`refresh`.

    Returns
    -------
    dict
        What ``melmill refresh --plan --json`` prints.
    """
    from melmill.pipelines.refresh import plan_refresh as run

    chosen = recipe_of_dataset(dataset, recipe, settings)
    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(dataset))
    job = _how_far(job, chosen, retry_failed, allow_removals)
    with _showing_progress("plan", job, progress) as shown:
        return run(shown, chosen.as_dict(), options)


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
    """Say what :func:`extract` would do and cost; reads headers, decodes nothing.

    Parameters
    ----------
    catalogue
        See :func:`extract`.
    output
        Needed only where workers are on other machines, which leave the plan there.
    recipe, settings, runner, runner_config, beam_options, workers, progress
        See :func:`extract`.

    Returns
    -------
    dict
        What ``melmill plan --json`` prints: ``recordings`` by what would be done with them,
        ``chunks``, ``rows`` and ``shards`` by split, ``seconds`` of audio, ``parquet_bytes``,
        ``cpu_seconds``, ``costs``, ``failures`` by cause.
    """
    from melmill.pipelines.plan import plan as run

    chosen = read_recipe(recipe, settings)
    options = _beam_options(runner, workers, beam_options, runner_config)
    job = make_job(chosen, str(catalogue), str(output))
    with _showing_progress("plan", job, progress) as shown:
        return run(shown, options)


def export(
    dataset: str | Path,
    output: str | Path,
    format: str,
    *,
    name: str | None = None,
    normalize: str = "none",
    storage_options: StorageOptions = None,
    output_storage_options: StorageOptions = None,
    runner: str | None = None,
    runner_config: str | Path | None = None,
    beam_options: Sequence[str] = (),
    workers: int = 0,
    progress: bool = False,
) -> Export:
    """Lay out a dataset's current snapshot as another ecosystem has it.

    Parameters
    ----------
    dataset
        A dataset's folder.
    output
        An empty or new folder.
    format
        ``tfds``, ``hf`` (Hugging Face), ``webdataset``, ``arrayrecord`` or ``numpy``.
    name
        The view's name; ``None`` for that of the dataset's folder.
    normalize
        ``global``, ``per_chunk`` or ``per_recording``: each mel band to mean 0 and deviation 1.
    storage_options, output_storage_options
        What fsspec opens the stores of the dataset and of the output with.
    runner, runner_config, beam_options, workers, progress
        See :func:`extract`.

    Returns
    -------
    Export
        Names of the files and numbers of rows, by split.
    """
    from melmill.pipelines.export import default_name
    from melmill.pipelines.export import export as run
    from melmill.transforms.rows.normalization import check_normalization
    from melmill.transforms.views.exports import ExportJob, check_format

    options = _beam_options(runner, workers, beam_options, runner_config)
    known, asked = check_format(format), check_normalization(normalize)
    source, target = (
        open_store(dataset, storage_options),
        open_store(output, output_storage_options),
    )
    job = ExportJob(source, "", target, known, name or default_name(str(dataset)), asked)
    with _showing_progress("export", job, progress) as shown:
        return run(shown, options)


def verify(
    dataset: str | Path,
    *,
    sample: int = 200,
    seed: int = 0,
    storage_options: StorageOptions = None,
    catalogue_storage_options: StorageOptions = None,
    progress: bool = False,
) -> Verification:
    """Compute a sample of rows again from the source recordings by librosa, and compare.

    Parameters
    ----------
    dataset
        A dataset's folder.
    sample
        Number of rows, drawn at random.
    seed
        Seed of the draw.
    storage_options, catalogue_storage_options
        What fsspec opens the stores of the dataset and of the recordings with.
    progress
        Whether to show on standard error how far it is.

    Returns
    -------
    Verification
        ``passed``, and by format how far rows are off.
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.snapshots.verify import verify as run

    store = open_store(dataset, storage_options)
    of_catalogue = tuple((catalogue_storage_options or {}).items())
    with counting("verify", "rows", quiet=not progress) as report:
        return run(store, sample, seed, report, of_catalogue)


def open_dataset(
    path: str | Path, version: int | None = None, storage_options: StorageOptions = None
) -> Dataset:
    """Open a dataset's current snapshot, or an earlier one; see :class:`Dataset`."""
    return Dataset(path, storage_options, version)


def read_recipe(recipe: Recipe, settings: Settings, stored: dict[str, Any] | None = None) -> Config:
    """Read a recipe, change what is asked for, and check all of it.

    Parameters
    ----------
    recipe, settings
        See :data:`Recipe`, :data:`Settings`.
    stored
        The recipe that a dataset was made with; taken where `recipe` is ``None``.
    """
    if isinstance(settings, Mapping):
        settings = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    elif isinstance(settings, str):
        raise ConfigError(f"settings: {settings!r}: must be a mapping, or a list of key=value")
    if isinstance(recipe, Config):
        return load_config(None, settings, recipe.model_dump(mode="json"))
    return load_config(recipe, settings, stored)


def recipe_of_dataset(dataset: str | Path, recipe: Recipe, settings: Settings) -> Config:
    """Read the recipe that is asked for, or the one that a dataset was made with."""
    asked = read_recipe(recipe, settings)
    if recipe is not None:
        return asked
    store = open_store(dataset, dict(asked.output.storage_options))
    current = read_snapshot(store) if "_delta_log" in store.top_names() else None
    return read_recipe(None, settings, current.configuration if current else None)


def open_store(root: str | Path, storage_options: StorageOptions = None) -> Store:
    """Name a folder on a disk or in an object store."""
    return Store(absolute_uri(str(root)), tuple((storage_options or {}).items()))


def make_job(recipe: Config, catalogue: str, output: str) -> ExtractJob:
    """Find the catalogue, and put together what the workers need to know."""
    from melmill.pipelines.extract import make_job, resolve_catalogue

    store = open_store(output, dict(recipe.output.storage_options))
    return make_job(recipe, resolve_catalogue(catalogue, recipe), store)


@contextlib.contextmanager
def _showing_progress(title: str, job: Job, progress: bool) -> Iterator[Job]:
    """Let the workers tell how far they are; with `progress` it is shown."""
    from melmill.pipelines.run.progress import showing_progress

    with showing_progress(title, quiet=not progress) as address:
        yield replace(job, progress=address)


def _how_far(
    job: ExtractJob, recipe: Config, retry_failed: bool, allow_removals: bool
) -> ExtractJob:
    spec = replace(recipe.refresh.spec(), retry_failed=retry_failed)
    return replace(job, refresh=replace(spec, max_removed_ratio=1.0) if allow_removals else spec)


def _beam_options(
    runner: str | None, workers: int, others: Sequence[str], recipe: str | Path | None
) -> Any:
    from melmill.pipelines.run.options import pipeline_options

    return pipeline_options(runner, workers, others, None if recipe is None else str(recipe))
