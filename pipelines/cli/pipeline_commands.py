"""The command ``melmill``."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melmill.pipelines.cli import pipeline_texts, snapshot_texts
from melmill.pipelines.cli.app import (
    PASS_THROUGH,
    CatalogueArgument,
    ConfigOption,
    DatasetArgument,
    Exit,
    JsonOption,
    OutputArgument,
    QuietOption,
    RunnerConfigOption,
    RunnerOption,
    SetOption,
    SingleWriterOption,
    StorageOption,
    WorkersOption,
    app,
    beam_options,
    open_store,
    print_json,
    reporting_errors,
)
from melmill.transforms.store.folders import Store, absolute_uri

if TYPE_CHECKING:
    from melmill.pipelines.config import Config
    from melmill.pipelines.extract import Extraction
    from melmill.transforms.plan.job import ExtractJob


@app.command(context_settings=PASS_THROUGH)
def extract(
    context: typer.Context,
    catalogue: CatalogueArgument,
    output: OutputArgument,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset made of something else.")
    ] = False,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Extract a catalogue into a dataset, and commit it.

    Interrupted at any moment, the same command goes on from the shards that are finished.
    Options that are not listed here go to Beam as they are.

    \b
    melmill extract songs/ dataset/
    melmill extract songs.csv dataset/ --set chunk.seconds=5 --set output.formats=[parquet,tfrecord]
    melmill extract 's3://bucket/songs/**/*.flac' s3://bucket/dataset --config configs/librosa.yaml
    """
    with reporting_errors():
        recipe = _load_recipe(config, set_)
        options = beam_options(runner, workers, context.args, runner_config)
        how = {"overwrite": overwrite, "single_writer": single_writer}
        _extract(recipe, catalogue, output, options, show=(as_json, quiet), **how)


def _load_recipe(config: str | None, overrides: list[str]) -> Config:
    from melmill.pipelines.config import load_config

    return load_config(config, overrides)


def _make_job(recipe: Config, catalogue: str, output: str) -> ExtractJob:
    from melmill.pipelines.extract import make_job, resolve_catalogue

    store = Store(absolute_uri(output), tuple(recipe.output.storage_options.items()))
    return make_job(recipe, resolve_catalogue(catalogue, recipe), store)


def _extract(
    recipe: Config,
    catalogue: str,
    output: str,
    options: Any,
    *,
    show: tuple[bool, bool],
    **how: bool,
) -> None:
    from melmill.pipelines.extract import extract as run
    from melmill.pipelines.run.progress import showing_progress

    as_json, quiet = show
    job = _make_job(recipe, catalogue, output)
    with showing_progress("extract", quiet) as address:
        job = replace(job, progress=address)
        extraction = run(job, recipe.as_dict(), options, **how)
    if as_json:
        print_json(pipeline_texts.extraction_json(output, extraction))
    else:
        print(pipeline_texts.extraction_text(output, extraction))
    if extraction.totals.recordings["failed"]:
        raise typer.Exit(Exit.PARTIAL)


@app.command(context_settings=PASS_THROUGH)
def refresh(
    context: typer.Context,
    catalogue: CatalogueArgument,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A dataset's folder, or a new one.")
    ],
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="Another recipe than the dataset's own."),
    ] = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, and do nothing.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try all that failed once more, whatever the cause."),
    ] = False,
    allow_removals: Annotated[
        bool,
        typer.Option(
            "--allow-removals", help="This once, remove more than refresh.max_removed_ratio."
        ),
    ] = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            "--metrics-file",
            metavar="FILE",
            help="Write the run's metrics for Prometheus' textfile collector.",
        ),
    ] = None,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a dataset up to date with its catalogue: only the change is computed.

    Recordings that are new, that changed, or whose failure may pass are extracted; rows of those
    that are gone leave; all others are carried over. One commit makes it the next snapshot; with
    nothing to do there is none. Without --config the recipe is the dataset's own.

    \b
    melmill refresh songs/ dataset/ --plan
    melmill refresh songs/ dataset/
    melmill refresh songs.csv dataset/ --set split.seed=1
    """
    from melmill.pipelines.run_records import recording_run

    with reporting_errors():
        recipe = recipe_for(dataset, config, set_)
        options = beam_options(runner, workers, context.args, runner_config)
        spec = replace(recipe.refresh.spec(), retry_failed=retry_failed)
        if allow_removals:
            spec = replace(spec, max_removed_ratio=1.0)
        show = (as_json, quiet)

        def make_job() -> ExtractJob:
            return replace(_make_job(recipe, catalogue, dataset), refresh=spec)

        if plan:
            _plan_refresh(make_job(), recipe, dataset, options, show)
        else:
            store = Store(absolute_uri(dataset), tuple(recipe.output.storage_options.items()))
            with recording_run(store, catalogue, metrics_file) as tell:
                made = _refresh(make_job(), recipe, options, single_writer, quiet=quiet)
                said = snapshot_texts.refresh_json(dataset, made)
                tell(made, said)
            _say_refreshed(dataset, made, said, as_json)


def recipe_for(dataset: str, config: str | None, overrides: list[str]) -> Config:
    """Read the recipe that is asked for, or the one that a dataset was made with."""
    from melmill.pipelines.config import load_config
    from melmill.transforms.snapshot.delta import read_snapshot

    asked = load_config(config, overrides)
    if config is not None:
        return asked
    store = Store(absolute_uri(dataset), tuple(asked.output.storage_options.items()))
    current = read_snapshot(store) if "_delta_log" in store.top_names() else None
    return load_config(None, overrides, current.configuration if current else None)


def _refresh(
    job: ExtractJob, recipe: Config, options: Any, single_writer: bool, *, quiet: bool
) -> Extraction:
    from melmill.pipelines.refresh import refresh as run
    from melmill.pipelines.run.progress import showing_progress

    with showing_progress("refresh", quiet) as address:
        job = replace(job, progress=address)
        return run(job, recipe.as_dict(), options, single_writer=single_writer)


def _say_refreshed(dataset: str, made: Extraction, said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(said)
    else:
        print(snapshot_texts.refresh_text(dataset, made))
    # Those that failed before and were not tried again are no news.
    if made.totals.recordings["failed"] > made.difference.get("waiting", 0):
        raise typer.Exit(Exit.PARTIAL)


def _plan_refresh(
    job: ExtractJob, recipe: Config, dataset: str, options: Any, show: tuple[bool, bool]
) -> None:
    from melmill.pipelines.refresh import plan_refresh as run
    from melmill.pipelines.run.progress import showing_progress

    as_json, quiet = show
    with showing_progress("plan", quiet) as address:
        planned = run(replace(job, progress=address), recipe.as_dict(), options)
    if as_json:
        print_json({"dataset": dataset, **planned})
    else:
        print(snapshot_texts.refresh_plan_text(dataset, planned))


@app.command(context_settings=PASS_THROUGH)
def plan(
    context: typer.Context,
    catalogue: CatalogueArgument,
    output: Annotated[
        str,
        typer.Argument(metavar="[OUTPUT]", help="Needed where workers are not on this machine."),
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what an extraction would do and cost; reads headers, decodes nothing."""
    from melmill.pipelines.plan import plan as run
    from melmill.pipelines.run.progress import showing_progress

    with reporting_errors():
        recipe = _load_recipe(config, set_)
        options = beam_options(runner, workers, context.args, runner_config)
        job = _make_job(recipe, catalogue, output)
        with showing_progress("plan", quiet) as address:
            planned = run(replace(job, progress=address), options)
    if as_json:
        print_json(planned)
    else:
        print(pipeline_texts.plan_text(catalogue, planned))


@app.command()
def inspect(
    dataset: DatasetArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Say what a dataset's current snapshot holds."""
    from melmill.pipelines.snapshots.inspect import inspect as run

    with reporting_errors():
        inspection = run(open_store(dataset, storage_option))
    if as_json:
        print_json(snapshot_texts.inspection_json(dataset, inspection))
    else:
        print(snapshot_texts.inspection_text(dataset, inspection))


@app.command()
def validate(
    dataset: DatasetArgument,
    workers: Annotated[int, typer.Option("--workers", min=0, help="0: one a core.")] = 0,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every shard again, and compare it with its checksum, schema, twin and the log."""
    from melmill.pipelines.run.local_workers import quiet_workers
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.snapshots.validate import validate as run

    with reporting_errors(), counting("validate", "shards", quiet) as report, quiet_workers():
        faults = run(open_store(dataset, storage_option), workers or os.cpu_count() or 1, report)
    if as_json:
        print_json({"dataset": dataset, "faults": faults})
    else:
        print("\n".join(faults) if faults else f"{dataset} is whole")
    if faults:
        raise typer.Exit(Exit.FAILED)


@app.command(context_settings=PASS_THROUGH)
def export(
    context: typer.Context,
    dataset: DatasetArgument,
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="An empty or new folder.")],
    format_: Annotated[
        str,
        typer.Option("--format", help="tfds, hf (Hugging Face), webdataset, arrayrecord or numpy."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The view's name; the dataset's folder's without.")
    ] = None,
    normalize: Annotated[
        str,
        typer.Option(
            "--normalize",
            help="Bring each mel band to mean 0 and deviation 1 over the training split (global), "
            "the chunk (per_chunk) or the recording (per_recording).",
        ),
    ] = "none",
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    output_storage_option: Annotated[
        list[str],
        typer.Option("--output-storage-option", metavar="KEY=VALUE", help="The same for OUTPUT."),
    ] = [],  # noqa: B006 - typer reads the default
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Lay out a dataset's current snapshot as another ecosystem has it.

    Files are linked where the bytes are the same, else copied or encoded anew.

    \b
    melmill export dataset/ songs-tfds/ --format tfds       # tfds.builder_from_directory
    melmill export dataset/ songs-hf/ --format hf           # datasets.load_dataset
    melmill export dataset/ songs-wds/ --format webdataset  # KEY.mel.npy and KEY.json in tar files
    melmill export dataset/ songs-grain/ --format arrayrecord --normalize global
    melmill export dataset/ songs-npy/ --format numpy       # np.load(..., mmap_mode="r")
    """
    from melmill.pipelines.export import default_name
    from melmill.pipelines.export import export as run
    from melmill.pipelines.run.progress import showing_progress
    from melmill.transforms.rows.normalization import check_normalization
    from melmill.transforms.views.exports import ExportJob, check_format

    with reporting_errors():
        options = beam_options(runner, workers, context.args, runner_config)
        known, asked = check_format(format_), check_normalization(normalize)
        named = name or default_name(dataset)
        source = open_store(dataset, storage_option)
        target = open_store(output, output_storage_option, "--output-storage-option")
        job = ExportJob(source, "", target, known, named, asked)
        with showing_progress("export", quiet) as address:
            made = run(replace(job, progress=address), options)
    if as_json:
        print_json(pipeline_texts.export_json(made))
    else:
        print(pipeline_texts.export_text(made))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made if need be.")] = Path(
        "melmill-demo"
    ),
    songs: Annotated[int, typer.Option("--songs", min=3, help="How many.")] = 24,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Synthesise a few songs in six formats, with labels, and extract them."""
    from melmill.pipelines.demo.songs import make_demo_catalogue

    with reporting_errors():
        recipe = _load_recipe(None, ["output.formats=[parquet,tfrecord]"])
        catalogue = make_demo_catalogue(folder / "songs", songs=songs)
        options = beam_options("direct", 0, [], None)
        show = (as_json, quiet)
        output = str(folder / "dataset")
        _extract(recipe, str(catalogue), output, options, show=show)


def main() -> None:
    """Run the command line."""
    import melmill.pipelines.cli.snapshot_commands  # noqa: F401 - adds its commands

    # Beam says on import that it lacks what only Dataflow needs.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    # Stores' clients log what they then raise, with their whole stack.
    for client in ("gcsfs", "google", "azure", "botocore", "aiobotocore"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    app()
