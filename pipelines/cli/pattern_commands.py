"""The command ``patterns``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from melmill.pipelines.cli.app import (
    DatasetArgument,
    JsonOption,
    QuietOption,
    StorageOption,
    app,
    print_json,
)
from melmill.pipelines.cli.exit_status import reporting_errors


@app.command()
def patterns(
    dataset: DatasetArgument,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="URI|ID",
            help="List what is most like this recording: its URI, the end of it, or its id.",
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option("--clusters", metavar="N", help="Also divide the recordings into N clusters."),
    ] = None,
    feature: Annotated[
        str | None,
        typer.Option(
            "--feature",
            metavar="NAME",
            help="The feature to compare. Default: the first that is no measure.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", help="Number of recordings and chunks to list.")
    ] = 20,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Read only this split.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table of all that is listed."),
    ] = None,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the most unusual recordings and chunks of a dataset, or those most like a recording.

    Compares the features in the rows, and decodes nothing. Says which measures are unusual, if the
    recordings were measured.

    \b
    melmill patterns dataset/
    melmill patterns dataset/ --like songs/song.flac
    melmill patterns dataset/ --clusters 5 --csv patterns.csv
    """
    from melmill.pipelines import api
    from melmill.pipelines.cli import pattern_texts as texts
    from melmill.pipelines.cli.check_reports import whole_file
    from melmill.pipelines.config import read_storage_options

    with reporting_errors(), ExitStack() as stack:
        table = stack.enter_context(whole_file("--csv", csv_file)) if csv_file else None
        found = api.patterns(
            dataset,
            like=like,
            clusters=clusters,
            feature=feature,
            top=top,
            split=split,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            progress=not quiet,
        )
        if table:
            texts.write_patterns_csv(found, table)
    if as_json:
        print_json(texts.patterns_json(found))
    else:
        print(texts.patterns_text(found))
