"""The commands that run pipelines, ``inspect``, ``validate`` and ``demo``."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melmill.pipelines.cli import pipeline_texts, snapshot_texts
from melmill.pipelines.cli.app import (
    PASS_THROUGH,
    CatalogueArgument,
    ConfigOption,
    DatasetArgument,
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
    open_store,
    print_json,
)
from melmill.pipelines.cli.exit_status import Exit, reporting_errors

if TYPE_CHECKING:
    from melmill.pipelines.extract import Extraction


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
        bool,
        typer.Option(
            "--overwrite", help="Replace a dataset that was made from another catalogue or recipe."
        ),
    ] = False,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Extract a catalogue into a dataset, and commit the dataset.

    If it is interrupted, run the same command again: it continues from the finished shards.
    Options that are not listed here are passed to Beam.

    \b
    melmill extract songs/ dataset/
    melmill extract songs.csv dataset/ --set chunk.seconds=5 --set output.formats=[parquet,tfrecord]
    melmill extract 's3://bucket/songs/**/*.flac' s3://bucket/dataset --recipe mine.yaml
    """
    from melmill.pipelines import api

    with reporting_errors(context):
        extraction = api.extract(
            catalogue,
            output,
            recipe=config,
            settings=set_,
            runner=runner,
            runner_config=runner_config,
            beam_options=context.args,
            workers=workers,
            overwrite=overwrite,
            single_writer=single_writer,
            progress=not quiet,
        ).extraction
        _print_extraction(output, extraction, as_json)


@app.command(context_settings=PASS_THROUGH)
def measure(
    context: typer.Context,
    catalogue: CatalogueArgument,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT", help="The dataset's folder: a new folder, or one that was measured."
        ),
    ],
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset, also one with rows.")
    ] = False,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a catalogue, without features: a dataset with an index and no rows.

    Then look at the readings, choose what to use by them, and extract it: nothing is measured
    again.

    \b
    melmill measure songs/ dataset/ --set 'quality=[full, acoustic]'
    melmill check dataset/ --csv defects.csv
    melmill duplicates dataset/
    melmill refresh songs/ dataset/ --set 'select=clipping.share < 0.001 and not channels.dead'
    """
    from melmill.pipelines import api

    with reporting_errors(context):
        extraction = api.measure(
            catalogue,
            output,
            recipe=config,
            settings=set_,
            runner=runner,
            runner_config=runner_config,
            beam_options=context.args,
            workers=workers,
            overwrite=overwrite,
            single_writer=single_writer,
            progress=not quiet,
        ).extraction
        text = partial(pipeline_texts.measuring_text, catalogue)
        _print_extraction(output, extraction, as_json, text)


def _print_extraction(
    output: str,
    extraction: Extraction,
    as_json: bool,
    text: Callable[[str, Extraction], str] = pipeline_texts.extraction_text,
) -> None:
    if as_json:
        print_json(pipeline_texts.extraction_json(output, extraction))
    else:
        print(text(output, extraction))
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
        typer.Option(
            *("--recipe", "--config"),
            metavar="FILE|NAME",
            help="A new recipe; without this option, the recipe of the dataset.",
        ),
    ] = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what a refresh would do, without doing it.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Retry all failed recordings, whatever the cause of the failure."
        ),
    ] = False,
    allow_removals: Annotated[
        bool,
        typer.Option(
            "--allow-removals", help="Let this run remove more than refresh.max_removed_ratio."
        ),
    ] = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            "--metrics-file",
            metavar="FILE",
            help="Write the run's metrics to this file, for Prometheus' textfile collector.",
        ),
    ] = None,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Update a dataset from its catalogue; only what changed is computed.

    Extracts new and changed recordings, and retries recordings that failed for a temporary
    reason. Removes the rows of recordings that are gone. Keeps all other rows. Commits the
    result as the next version, unless nothing changed.

    \b
    melmill refresh songs/ dataset/ --plan
    melmill refresh songs/ dataset/
    melmill refresh songs.csv dataset/ --set split.seed=1
    """
    from melmill.pipelines import api

    arguments: dict[str, Any] = {
        "recipe": config,
        "settings": set_,
        "runner": runner,
        "runner_config": runner_config,
        "beam_options": context.args,
        "workers": workers,
        "retry_failed": retry_failed,
        "allow_removals": allow_removals,
        "progress": not quiet,
    }
    with reporting_errors(context):
        if plan:
            _print_refresh_plan(dataset, api.plan_refresh(catalogue, dataset, **arguments), as_json)
        else:
            arguments |= {"metrics_file": metrics_file, "single_writer": single_writer}
            extraction = api.refresh(catalogue, dataset, **arguments).extraction
            _print_refresh(dataset, extraction, as_json)


def _print_refresh_plan(dataset: str, planned: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"dataset": dataset, **planned})
    else:
        print(snapshot_texts.refresh_plan_text(dataset, planned))


def _print_refresh(dataset: str, extraction: Extraction, as_json: bool) -> None:
    from melmill.pipelines.run_records import result_json

    if as_json:
        print_json({"dataset": dataset, **result_json(extraction)})
    else:
        print(snapshot_texts.refresh_text(dataset, extraction))
    # Recordings that failed in earlier runs and were not retried do not count.
    if extraction.totals.recordings["failed"] > extraction.difference.get("waiting", 0):
        raise typer.Exit(Exit.PARTIAL)


@app.command(context_settings=PASS_THROUGH)
def plan(
    context: typer.Context,
    catalogue: CatalogueArgument,
    output: Annotated[
        str,
        typer.Argument(
            metavar="[OUTPUT]",
            help="The dataset's folder; needed only if workers run on other machines.",
        ),
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nobody changes it
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what an extraction would do and cost.

    Reads the header of every recording, and decodes no audio. If the extraction would commit
    nothing, the exit status is that of the extraction: 2 if something must be changed first, 1 if
    the failures may pass.

    \b
    melmill plan songs/
    melmill plan 's3://bucket/songs/**' s3://bucket/dataset --runner dataflow
    """
    from melmill.pipelines import api

    with reporting_errors(context):
        planned = api.plan(
            catalogue,
            output,
            recipe=config,
            settings=set_,
            runner=runner,
            runner_config=runner_config,
            beam_options=context.args,
            workers=workers,
            progress=not quiet,
        )
    if as_json:
        print_json(planned)
    else:
        print(pipeline_texts.plan_text(catalogue, planned))
    if planned["refused"]:
        raise typer.Exit(Exit.FAILED if planned["refusal_may_pass"] else Exit.USAGE)


@app.command()
def inspect(
    dataset: DatasetArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Print what a dataset holds: recordings, rows, splits, failures.

    \b
    melmill inspect dataset/
    melmill inspect dataset/ --json | jq .failures
    """
    from melmill.pipelines.snapshots.open import OpenSnapshot

    with reporting_errors():
        opened = OpenSnapshot.current(open_store(dataset, storage_option))
        if as_json:
            print_json(snapshot_texts.inspection_json(dataset, opened))
        else:
            print(snapshot_texts.inspection_text(dataset, opened))


@app.command()
def validate(
    dataset: DatasetArgument,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Number of processes; 0: one per core.")
    ] = 0,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check every shard, and list what is damaged.

    Compares each shard with its checksum, its schema, its TFRecord file, the index and the Delta
    log. The exit status is 1 if anything is damaged.

    \b
    melmill validate dataset/
    """
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
        str | None,
        typer.Option(
            "--name", help="The export's name. Default: the name of the dataset's folder."
        ),
    ] = None,
    normalize: Annotated[
        str,
        typer.Option(
            "--normalize",
            help="Bring each mel band to mean 0 and standard deviation 1 over the training split "
            "(global), the chunk (per_chunk) or the recording (per_recording).",
        ),
    ] = "none",
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="EXPR",
            help="Export only the recordings whose measures make this expression true; "
            "melmill check --list prints all measures.",
        ),
    ] = None,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    output_storage_option: Annotated[
        list[str],
        typer.Option(
            "--output-storage-option",
            metavar="KEY=VALUE",
            help="An option of fsspec for the store of OUTPUT.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export a dataset to TFDS, Hugging Face, WebDataset, ArrayRecord.

    Files that need no change are linked. Other files are copied or encoded again.

    \b
    melmill export dataset/ songs-tfds/ --format tfds       # tfds.builder_from_directory
    melmill export dataset/ songs-hf/ --format hf           # datasets.load_dataset
    melmill export dataset/ songs-wds/ --format webdataset  # KEY.mel.npy and KEY.json in tar files
    melmill export dataset/ songs-grain/ --format arrayrecord --normalize global
    melmill export dataset/ songs-npy/ --format numpy       # np.load(..., mmap_mode="r")
    melmill export dataset/ clean/ --format hf --select 'clipping.share < 0.001'
    """
    from melmill.pipelines import api
    from melmill.pipelines.config import read_storage_options

    with reporting_errors(context):
        target = "--output-storage-option"
        exported = api.export(
            dataset,
            output,
            format_,
            name=name,
            normalize=normalize,
            select=select,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            output_storage_options=dict(read_storage_options(target, output_storage_option)),
            runner=runner,
            runner_config=runner_config,
            beam_options=context.args,
            workers=workers,
            progress=not quiet,
        )
    if as_json:
        print_json(pipeline_texts.export_json(exported))
    else:
        print(pipeline_texts.export_text(exported))


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The recipe to print; none: list all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes that come with melmill, or print one of them.

    \b
    melmill presets
    melmill presets whisper-80 > recipe.yaml
    melmill extract songs/ dataset/ --recipe whisper-80
    """
    from melmill.pipelines.presets import describe_preset, list_presets, preset_json, preset_text

    with reporting_errors():
        if as_json and name is not None:
            print_json(preset_json(describe_preset(name)))
        elif as_json:
            print_json([preset_json(preset) for preset in list_presets()])
        elif name is not None:
            print(preset_text(name), end="")
        else:
            print(snapshot_texts.presets_text(list_presets()))


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The output folder; created if needed.")
    ] = Path("melmill-demo"),
    songs: Annotated[int, typer.Option("--songs", min=3, help="Number of songs.")] = 24,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Create a few songs with labels, in six formats, and extract them.

    \b
    melmill demo
    melmill demo /tmp/demo --songs 100
    """
    from melmill.pipelines import api
    from melmill.pipelines.demo.songs import make_demo_catalogue

    output = str(folder / "dataset")
    with reporting_errors():
        formats = ["output.formats=[parquet,tfrecord]"]
        api.read_recipe(None, formats)
        catalogue = make_demo_catalogue(folder / "songs", songs=songs)
        dataset = api.extract(catalogue, output, settings=formats, progress=not quiet)
        _print_extraction(output, dataset.extraction, as_json)
        if not as_json:
            print(f"\nSee and hear it in a browser:\n\n  {_command('explore', output)}")


def _command(*words: str) -> str:
    """Return a command for the shell: with the path of melmill if the shell may not find it."""
    program = Path(sys.argv[0])
    is_script = program.name == "melmill" and str(program) != shutil.which("melmill")
    return shlex.join([os.path.relpath(program) if is_script else "melmill", *words])


def main() -> None:
    """Run the command line."""
    import melmill.pipelines.cli.check_commands
    import melmill.pipelines.cli.column_commands
    import melmill.pipelines.cli.duplicate_commands
    import melmill.pipelines.cli.explore_commands
    import melmill.pipelines.cli.pattern_commands
    import melmill.pipelines.cli.report_commands
    import melmill.pipelines.cli.show_commands
    import melmill.pipelines.cli.snapshot_commands  # noqa: F401 - adds its commands

    # On import, Beam logs that packages are missing which only Dataflow needs.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    # The stores' clients log each error with its stack trace before they raise it. So does Beam's
    # connection to a worker that was killed, which run/launch.py reports and retries.
    quiet = ("gcsfs", "google", "azure", "botocore", "aiobotocore")
    for client in (*quiet, "apache_beam.runners.worker.data_plane"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    app()
