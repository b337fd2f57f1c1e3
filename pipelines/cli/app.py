"""The parts that all commands share: the application and its options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

import melmill
from melmill.pipelines.cli.exit_status import EPILOG, Exit

if TYPE_CHECKING:
    from melmill.transforms.store.folders import Store


app = typer.Typer(
    name="melmill",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"melmill {melmill.__version__}")
        raise typer.Exit(Exit.SUCCESS)


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Turn audio catalogues into log-mel training data.

    \b
    melmill demo                          # a small example, ready in a minute
    melmill extract songs/ dataset/       # a catalogue becomes a dataset
    melmill refresh songs/ dataset/       # only what changed is computed
    melmill inspect dataset/              # what the dataset holds
    melmill COMMAND --help                # more examples
    """


PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}

CatalogueArgument = Annotated[
    str,
    typer.Argument(
        metavar="CATALOGUE",
        help="The audio: a directory (searched with its subdirectories), a glob, an audio file, "
        "a table (CSV, TSV, JSON lines, Parquet), a manifest (NeMo, lhotse, Kaldi, ...), or tar, "
        "zip or Parquet files with the audio in them. A local path or any fsspec URL.",
    ),
]
OutputArgument = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT",
        help="The dataset's folder: a new folder, or the folder of this dataset.",
    ),
]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's folder.")]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        *("--recipe", "--config"),
        metavar="FILE|NAME",
        help="A recipe: a YAML file, or the name of a recipe that comes with melmill (librosa, "
        "the default; melmill presets lists all).",
    ),
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
        help="An option of fsspec for the dataset's store, in addition to the environment: "
        "--storage-option endpoint_url=http://localhost:9000",
    ),
]
SourceOption = Annotated[
    list[str],
    typer.Option(
        "--source-option",
        metavar="KEY=VALUE",
        help="An option of fsspec for the recordings' own store.",
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
        metavar="FILE|NAME",
        help="Beam options for a runner: a YAML file, or the name of a file that comes with "
        "melmill: flink-local, flink-kubernetes, dataflow, direct, prism.",
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        help="Number of worker processes of --runner direct; 0: one per core, but none for a small "
        "job.",
    ),
]
SingleWriterOption = Annotated[
    bool,
    typer.Option(
        "--unsafe-single-writer",
        help="For object stores that let two runs overwrite each other's commits: guarantee "
        "that no other run writes to the dataset at the same time.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def open_store(root: str, settings: list[str], option: str = "--storage-option") -> Store:
    """Return the store for a folder, with the settings of ``--storage-option``."""
    from melmill.pipelines.config import read_storage_options
    from melmill.transforms.store.folders import Store, absolute_uri

    return Store(absolute_uri(root), read_storage_options(option, settings))


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=1))
