"""The command ``report``."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from melmill.pipelines.cli.app import (
    DatasetArgument,
    QuietOption,
    SourceOption,
    StorageOption,
    app,
    open_store,
)
from melmill.pipelines.cli.exit_status import Exit, complain, reporting_errors
from melmill.transforms.core.errors import ConfigError


class Format(StrEnum):
    """The formats of a report."""

    HTML = "html"
    CSV = "csv"
    JSON = "json"


@app.command()
def report(
    dataset: DatasetArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"),
            metavar="FILE",
            help="File to write. Default: report.html; CSV and JSON are printed.",
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="A page to read, or a row for every finding, for programs."),
    ] = Format.HTML,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="NAME|FILE",
            help="Limits of measures; what breaks them is a defect (melmill check --list).",
        ),
    ] = "training",
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="A version. Default: the current one."),
    ] = None,
    top: Annotated[
        int,
        typer.Option("--top", metavar="N", min=1, help="Most examples of each kind on the page."),
    ] = 10,
    max_size: Annotated[
        float,
        typer.Option(
            "--max-size",
            metavar="MB",
            min=0.001,
            max=1e6,
            help="Largest size of the page in megabytes.",
        ),
    ] = 10.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    source_option: SourceOption = [],  # noqa: B006 - typer reads the default
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Number of decoder processes; 0: one per core.")
    ] = 0,
    quiet: QuietOption = False,
) -> None:
    """Write a report about a dataset: one page to send by mail, or a table of all findings.

    The page has pictures of the worst defects and seconds of sound to play, failures, duplicates
    and an overview. It needs no network, and reads the recordings themselves only for the pictures.

    \b
    melmill report dataset/ -o report.html
    melmill report dataset/ --profile podcast --top 20
    melmill report dataset/ --format csv > findings.csv
    """
    from melmill.pipelines.cli.check_reports import whole_file
    from melmill.pipelines.config import read_storage_options
    from melmill.pipelines.profiles import load_profile
    from melmill.pipelines.report.rows import write_csv, write_json
    from melmill.pipelines.report.snapshot import ReportedSnapshot
    from melmill.pipelines.run import interruption
    from melmill.pipelines.run.progress import counting

    is_page = form is Format.HTML
    if is_page:
        try:
            from melmill.pipelines.report.contents import collect
            from melmill.pipelines.report.page import render_report
        except ModuleNotFoundError as error:
            complain(f"{error.name} is not installed: pip install 'melmill[explore]'")
            raise typer.Exit(Exit.USAGE) from None
        output = output or Path("report.html")
    interruption.advise("no report was written")
    with reporting_errors():
        _require_new(output, overwrite)
        sources = read_storage_options("--source-option", source_option)
        store, limits = open_store(dataset, storage_option), load_profile(profile)
        command = _command(dataset, form, profile, version, top, max_size)
        reported = ReportedSnapshot.open(store, limits, version, command)
        with ExitStack() as stack:
            file = stack.enter_context(whole_file("--output", output)) if output else sys.stdout
            count = stack.enter_context(counting("report", "examples", quiet or not is_page))
            if is_page:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="melmill-report-")))
                contents = collect(reported, top, folder)
                processes = workers or os.cpu_count() or 1
                budget = round(max_size * 1_000_000)
                file.write(render_report(contents, budget, sources, processes, count))
            else:
                (write_csv if form is Format.CSV else write_json)(reported, file)
    if output and not quiet:
        print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)


def _require_new(output: Path | None, overwrite: bool) -> None:
    """Raise ConfigError if the file exists; a pipe or a device may exist."""
    if output is not None and output.is_file() and not overwrite:
        raise ConfigError(
            f"--output {output}: the file exists; give another name, or --overwrite to replace it"
        )


def _command(
    dataset: str, form: Format, profile: str, version: int | None, top: int, max_size: float
) -> str:
    """Return the command of the report, without options of stores: they may be secret."""
    words = ["melmill", "report", dataset, "--profile", profile]
    words += ["--version", str(version)] if version is not None else []
    if form is Format.HTML:
        words += ["--top", str(top), "--max-size", f"{max_size:g}"]
    else:
        words += ["--format", form.value]
    return shlex.join(words)
