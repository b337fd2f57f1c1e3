"""The command ``explore``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from melmill.pipelines.cli.app import (
    DatasetArgument,
    SourceOption,
    StorageOption,
    app,
    open_store,
)
from melmill.pipelines.cli.exit_status import complain, reporting_errors


@app.command()
def explore(
    dataset: DatasetArgument,
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="Show this version. Default: the current one."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="NAME|FILE",
            help="Limits of measures; what breaks them is a defect (melmill check --list).",
        ),
    ] = "training",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: a free one.")] = 0,
    verdicts: Annotated[
        Path,
        typer.Option(
            "--verdicts",
            metavar="FILE",
            help="CSV file for your verdicts: a new file, or one of an earlier session.",
        ),
    ] = Path("verdicts.csv"),
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    source_option: SourceOption = [],  # noqa: B006 - typer reads the default
) -> None:
    """See and hear the recordings of a dataset in a web browser.

    Starts a web application that only this machine can open, and prints its address. Reads the
    dataset, and writes nothing to it. Control-C ends it.

    \b
    melmill explore dataset/
    melmill explore s3://bucket/dataset --profile podcast
    """
    from melmill.pipelines.config import read_storage_options
    from melmill.pipelines.profiles import load_profile
    from melmill.pipelines.run import interruption

    try:
        from melmill.pipelines.explore.explorer import Explorer
        from melmill.pipelines.explore.server import serve
        from melmill.pipelines.explore.verdicts import Verdicts
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed: pip install 'melmill[explore]'")
        raise typer.Exit(2) from None
    with reporting_errors():
        store = open_store(dataset, storage_option)
        sources = read_storage_options("--source-option", source_option)
        explorer = Explorer.open(store, load_profile(profile), Verdicts(verdicts), sources, version)
        interruption.advise(f"your verdicts are in {verdicts}")
        with closing(explorer):
            serve(explorer, port, lambda address: print(f"Open {address}", flush=True))
