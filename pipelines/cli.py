"""The command ``melmill``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import present
from transforms.errors import UserError
from transforms.storage.store import Store, absolute_uri

if TYPE_CHECKING:
    from pipelines.config import Config
    from transforms.job import ExtractJob


class Exit(IntEnum):
    """What the command's exit status means."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3


_EPILOG = (
    "Exit status: 0 success; 3 partial: committed, but some recordings failed (fewer than "
    "limits.max_failure_ratio); 1 failed: nothing was committed, the same command goes on "
    "where it stopped; 2 bad usage, configuration, catalogue or output: change something first."
)

app = typer.Typer(
    name="melmill",
    help="Turn audio catalogues into log-mel training data.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}

CatalogueArgument = Annotated[
    str,
    typer.Argument(
        metavar="CATALOGUE",
        help="Where the audio is: a directory (searched through), a glob, an audio file, or a "
        "table (.csv, .jsonl, .parquet) with a column 'uri'. A local path or any fsspec URL.",
    ),
]
OutputArgument = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="The dataset's folder: a new one, or its own.")
]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's folder.")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="Recipe in YAML; librosa's defaults without."),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key: --set chunk.seconds=5."),
]
StorageOption = Annotated[
    list[str],
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="What fsspec opens the dataset's store with, beside what the environment says: "
        "--storage-option endpoint_url=http://localhost:9000",
    ),
]
RunnerOption = Annotated[
    str | None,
    typer.Option("--runner", help="direct (this machine; the default), flink, dataflow or prism."),
]
RunnerConfigOption = Annotated[
    str | None,
    typer.Option(
        "--runner-config",
        metavar="FILE",
        help="Beam's options for a runner, in YAML: configs/runners/flink-local.yaml",
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option("--workers", min=0, help="Worker processes of --runner direct; 0: one a core."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def _store(root: str, settings: list[str], option: str = "--storage-option") -> Store:
    from pipelines.config import read_storage_options

    return Store(absolute_uri(root), read_storage_options(option, settings))


@contextlib.contextmanager
def _reporting_errors() -> Iterator[None]:
    from pipelines.finish import TooManyFailuresError
    from pipelines.launch import LostWorkerError, NothingSubmittedError, end_children

    try:
        yield
    except UserError as error:
        _complain(str(error))
        raise typer.Exit(Exit.USAGE) from None
    except TooManyFailuresError as error:
        _complain(str(error))
        raise typer.Exit(Exit.FAILED) from None
    except LostWorkerError as error:
        _complain(f"{error}, again and again; the same command goes on from the finished shards")
        raise typer.Exit(Exit.FAILED) from None
    except NothingSubmittedError as outcome:
        print(outcome)
        raise typer.Exit(Exit.SUCCESS) from None
    except KeyboardInterrupt:
        end_children()
        _complain("interrupted; the same command goes on from the finished shards")
        raise typer.Exit(130) from None


def _complain(message: str) -> None:
    print(f"melmill: {message}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


@app.command(context_settings=_PASS_THROUGH)
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
    single_writer: Annotated[
        bool,
        typer.Option(
            "--unsafe-single-writer",
            help="For object stores that let two runs overwrite each other's commits: warrant "
            "that there is only this one.",
        ),
    ] = False,
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
    with _reporting_errors():
        recipe = _load_recipe(config, set_)
        options = _beam_options(runner, workers, context.args, runner_config)
        how = {"overwrite": overwrite, "single_writer": single_writer}
        _extract(recipe, catalogue, output, options, show=(as_json, quiet), **how)


def _load_recipe(config: str | None, overrides: list[str]) -> Config:
    from pipelines.config import load_config

    return load_config(config, overrides)


def _beam_options(runner: str | None, workers: int, others: list[str], recipe: str | None) -> Any:
    from pipelines.options import pipeline_options

    return pipeline_options(runner, workers, others, recipe)


def _make_job(recipe: Config, catalogue: str, output: str) -> ExtractJob:
    from pipelines.extract import make_job, resolve_catalogue

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
    from pipelines.extract import extract as run
    from pipelines.progress import showing_progress

    as_json, quiet = show
    job = _make_job(recipe, catalogue, output)
    with showing_progress("extract", quiet) as address:
        job = replace(job, progress=address)
        extraction = run(job, recipe.as_dict(), options, **how)
    if as_json:
        _print_json(present.extraction_json(output, extraction))
    else:
        print(present.extraction_text(output, extraction))
    if extraction.totals.recordings["failed"]:
        raise typer.Exit(Exit.PARTIAL)


@app.command(context_settings=_PASS_THROUGH)
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
    from pipelines.plan import plan as run
    from pipelines.progress import showing_progress

    with _reporting_errors():
        recipe = _load_recipe(config, set_)
        options = _beam_options(runner, workers, context.args, runner_config)
        job = _make_job(recipe, catalogue, output)
        with showing_progress("plan", quiet) as address:
            planned = run(replace(job, progress=address), options)
    if as_json:
        _print_json(planned)
    else:
        print(present.plan_text(catalogue, planned))


@app.command()
def inspect(
    dataset: DatasetArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Say what a dataset's current snapshot holds."""
    from pipelines.inspect import inspect as run
    from pipelines.inspect import inspection_json, inspection_text

    with _reporting_errors():
        inspection = run(_store(dataset, storage_option))
    if as_json:
        _print_json(inspection_json(dataset, inspection))
    else:
        print(inspection_text(dataset, inspection))


@app.command()
def validate(
    dataset: DatasetArgument,
    workers: Annotated[int, typer.Option("--workers", min=0, help="0: one a core.")] = 0,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every shard again, and compare it with its checksum, schema, twin and the log."""
    from pipelines.progress import counting
    from pipelines.validate import validate as run

    with _reporting_errors(), counting("validate", "shards", quiet) as report:
        faults = run(_store(dataset, storage_option), workers or os.cpu_count() or 1, report)
    if as_json:
        _print_json({"dataset": dataset, "faults": faults})
    else:
        print("\n".join(faults) if faults else f"{dataset} is whole")
    if faults:
        raise typer.Exit(Exit.FAILED)


@app.command(context_settings=_PASS_THROUGH)
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
    from pipelines.export import default_name
    from pipelines.export import export as run
    from pipelines.progress import showing_progress
    from transforms.storage.exports import ExportJob, check_format
    from transforms.storage.normalization import check_normalization

    with _reporting_errors():
        options = _beam_options(runner, workers, context.args, runner_config)
        known, asked = check_format(format_), check_normalization(normalize)
        named = name or default_name(dataset)
        source = _store(dataset, storage_option)
        target = _store(output, output_storage_option, "--output-storage-option")
        job = ExportJob(source, "", target, known, named, asked)
        with showing_progress("export", quiet) as address:
            made = run(replace(job, progress=address), options)
    if as_json:
        _print_json(present.export_json(made))
    else:
        print(present.export_text(made))


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
    from pipelines.demo import make_demo_catalogue

    with _reporting_errors():
        recipe = _load_recipe(None, ["output.formats=[parquet,tfrecord]"])
        catalogue = make_demo_catalogue(folder / "songs", songs=songs)
        options = _beam_options("direct", 0, [], None)
        show = (as_json, quiet)
        output = str(folder / "dataset")
        _extract(recipe, str(catalogue), output, options, show=show)


def main() -> None:
    """Run the command line."""
    # Beam says on import that it lacks what only Dataflow needs.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    # Stores' clients log what they then raise, with their whole stack.
    for client in ("gcsfs", "google", "azure", "botocore", "aiobotocore"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    app()
