"""The command ``add-columns``."""

from __future__ import annotations

from typing import Annotated

import typer

from melmill.pipelines.cli import column_texts
from melmill.pipelines.cli.app import (
    DatasetArgument,
    JsonOption,
    SingleWriterOption,
    StorageOption,
    app,
    print_json,
)
from melmill.pipelines.cli.exit_status import reporting_errors


@app.command("add-columns")
def add_columns(
    dataset: DatasetArgument,
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE",
            help="The values: a table (.csv, .jsonl, .parquet). A local path or any fsspec URL.",
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="recording_id|uri|row",
            help="What a row of TABLE belongs to: a recording, by its recording_id or its uri, or "
            "a row of the dataset, by recording_id and chunk_index (and channel, if each channel "
            "has its own rows).",
        ),
    ] = "recording_id",
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="A,B", help="Add these columns of TABLE. Default: all."),
    ] = None,
    types: Annotated[
        list[str],
        typer.Option(
            "--type",
            metavar="NAME=TYPE",
            help="The type of a column: string, int64, double, bool, or list<...> of these.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace all values of columns that were added before."),
    ] = False,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Replace the values that TABLE has, and keep the others that were added before.",
        ),
    ] = False,
    ignore_unknown: Annotated[
        bool,
        typer.Option(
            "--ignore-unknown", help="Leave out rows of TABLE that belong to nothing in DATASET."
        ),
    ] = False,
    drop: Annotated[
        list[str],
        typer.Option("--drop", metavar="NAME", help="Drop an added column; without TABLE."),
    ] = [],  # noqa: B006 - typer reads the default
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    table_storage_option: Annotated[
        list[str],
        typer.Option(
            "--table-storage-option",
            metavar="KEY=VALUE",
            help="An option of fsspec for the table's store.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add labels, scores or tokens to a dataset; no feature is rewritten.

    Commits the columns as a new version. The loaders join them to the rows, and a refresh keeps
    them. Refuses rows that belong to nothing in the dataset.

    \b
    melmill add-columns dataset/ verdicts.csv
    melmill add-columns dataset/ scores.parquet --on row --columns score --replace
    melmill add-columns dataset/ --drop score
    """
    from melmill.pipelines import api
    from melmill.pipelines.config import read_storage_options

    with reporting_errors():
        table_options = read_storage_options("--table-storage-option", table_storage_option)
        result = api.add_columns(
            dataset,
            table,
            on=on,
            columns=None if columns is None else [name.strip() for name in columns.split(",")],
            types=column_texts.read_types(types),
            replace=replace,
            update=update,
            ignore_unknown=ignore_unknown,
            drop=drop,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            table_storage_options=dict(table_options),
            single_writer=single_writer,
        )
    if as_json:
        print_json(column_texts.result_json(dataset, result))
    else:
        print(column_texts.result_text(dataset, result, table or ""))
