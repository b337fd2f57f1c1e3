"""The command ``duplicates``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from melmill.pipelines.cli.app import (
    PASS_THROUGH,
    DatasetArgument,
    JsonOption,
    QuietOption,
    RunnerConfigOption,
    RunnerOption,
    StorageOption,
    WorkersOption,
    app,
    print_json,
)
from melmill.pipelines.cli.exit_status import reporting_errors
from melmill.transforms.core.errors import ConfigError


@app.command(context_settings=PASS_THROUGH)
def duplicates(
    context: typer.Context,
    dataset: DatasetArgument,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="OTHER",
            help="List what this dataset shares with another one: train here, test there.",
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table, one row for each match."),
    ] = None,
    exclude_list: Annotated[
        Path | None,
        typer.Option(
            "--exclude-list",
            metavar="FILE",
            help="Write a table (.csv) of all recordings but the best of each group, for "
            "catalogue.exclude; with --against, of what OTHER has, too.",
        ),
    ] = None,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the recordings of a dataset that sound the same.

    Finds exact copies, and copies in another codec, bit rate, sample rate or level, or trimmed, by
    the fingerprints that the recipe's quality: [basic, acoustic] makes.

    \b
    melmill refresh songs/ dataset/ --set 'quality=[basic, acoustic]'
    melmill duplicates dataset/
    melmill duplicates train/ --against test/
    melmill duplicates dataset/ --exclude-list copies.csv
    melmill refresh songs/ dataset/ --set catalogue.exclude=copies.csv
    """
    from melmill.pipelines import api
    from melmill.pipelines.cli import duplicate_texts as texts
    from melmill.pipelines.cli.check_reports import whole_file
    from melmill.pipelines.config import read_storage_options

    with reporting_errors(context), ExitStack() as stack:
        if exclude_list and (exclude_list.suffix != ".csv" or exclude_list == csv_file):
            raise ConfigError(
                f"--exclude-list {exclude_list}: must end with .csv, and must not be the file of "
                "--csv; catalogue.exclude reads other files as plain lists"
            )
        table = stack.enter_context(whole_file("--csv", csv_file)) if csv_file else None
        excluded = (
            stack.enter_context(whole_file("--exclude-list", exclude_list))
            if exclude_list
            else None
        )
        found = api.duplicates(
            dataset,
            against,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            runner=runner,
            runner_config=runner_config,
            beam_options=context.args,
            workers=workers,
            progress=not quiet,
        )
        if table:
            texts.write_matches_csv(found, table)
        if excluded:
            for uri in texts.write_exclude_list(found, excluded):
                message = "melmill: not excluded, because its file has other recordings: "
                print(message + uri, file=sys.stderr)
    if as_json:
        print_json(texts.duplicates_json(found))
    else:
        print(texts.duplicates_text(found))
