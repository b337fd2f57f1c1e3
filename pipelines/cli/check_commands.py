"""The command ``check``."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melmill.pipelines.cli.app import QuietOption, app, print_json
from melmill.pipelines.cli.exit_status import Exit, reporting_errors

if TYPE_CHECKING:
    from melmill.pipelines.check import CheckedRecording
    from melmill.pipelines.profiles import Profile
    from melmill.transforms.measures.meters import Quality
    from melmill.transforms.store.folders import Store

    #: A function that shows a recording's result.
    Show = Callable[[CheckedRecording], None]


class Measures(StrEnum):
    """The measures that ``--json`` and ``--csv`` give in addition to those of the profile."""

    BASIC = "basic"
    FULL = "full"


@app.command()
def check(
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO...",
            help="Audio files, directories (searched with their subdirectories), globs, tables "
            "(.csv, .jsonl, .parquet) with a column 'uri', or a dataset of melmill. Local paths or "
            "any fsspec URLs.",
        ),
    ] = [],  # noqa: B006 - typer reads the default, nobody changes it
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="NAME|FILE",
            help="The limits: training, ebu_r128, ebu_live, atsc_a85, streaming, podcast, or a "
            "YAML file.",
        ),
    ] = "training",
    measures: Annotated[
        Measures | None,
        typer.Option(
            "--measures",
            help="Also give the measures that the profile does not limit, in --json and --csv; "
            "of a dataset, only those that it has.",
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table, one row for each recording."),
    ] = None,
    junit_file: Annotated[
        Path | None,
        typer.Option(
            "--junit", metavar="FILE", help="Write a report in JUnit's XML, for CI systems."
        ),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List all profiles and all measures, and exit.")
    ] = False,
    storage_option: Annotated[
        list[str],
        typer.Option(
            "--storage-option",
            metavar="KEY=VALUE",
            help="An option of fsspec for the store of the audio.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Number of processes; 0: one per core.")
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each result as a line of JSON.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure recordings, and compare them with the limits of a profile.

    Prints a line for each recording, as soon as it is measured: pass, or FAIL with each broken
    limit, its place and its reason. The exit status is 1 if any recording fails. The recordings of
    a dataset were measured when they were extracted: nothing is decoded again.

    \b
    melmill check songs/
    melmill check mix.wav --profile ebu_r128
    melmill check dataset/ --csv defects.csv
    melmill check songs/ --profile limits.yaml --csv songs.csv --junit songs.xml
    melmill check songs/ --json | jq -r 'select(.verdict == "fail").uri'
    """
    from melmill.pipelines.check import check_recordings, find_dataset, measured, open_catalogues
    from melmill.pipelines.cli.check_texts import summary_text
    from melmill.pipelines.config import read_storage_options
    from melmill.pipelines.profiles import load_profile
    from melmill.pipelines.run import interruption

    interruption.advise("not all recordings were checked, and no report was written")
    counts, passed_over = Counter[bool](), Counter[str]()
    quality: Quality = measures.value if measures else "off"
    with reporting_errors(), ExitStack() as stack:
        if list_all:
            _print_list(as_json)
            return
        options = read_storage_options("--storage-option", storage_option)
        limits, stores = load_profile(profile), [find_dataset(name, options) for name in audio]
        names = [name for name, store in zip(audio, stores, strict=True) if store is None]
        datasets = [store for store in stores if store is not None]
        catalogues = open_catalogues(names, options) if names or not datasets else []
        reports = _open_reports(stack, csv_file, junit_file, limits, measured(limits, quality))
        show = stack.enter_context(_showing(as_json, quiet))
        results = check_recordings(
            catalogues, limits, quality=quality, workers=workers, passed_over=passed_over
        )
        stack.enter_context(closing(results))
        known = (_check_dataset(store, limits, quality) for store in datasets)
        for checked in itertools.chain(*known, results):
            counts[checked.passes] += 1
            for add in (*reports, show):
                add(checked)
    if not as_json:
        print(summary_text(limits, counts, passed_over))
    if counts[False]:
        raise typer.Exit(Exit.FAILED)


def _check_dataset(store: Store, limits: Profile, quality: Quality) -> Iterator[CheckedRecording]:
    from melmill.pipelines.check_dataset import check_dataset  # imports Arrow and Delta

    return check_dataset(store, limits, quality)


def _print_list(as_json: bool) -> None:
    from melmill.pipelines.cli.check_texts import list_json, list_text
    from melmill.pipelines.profiles import list_profiles

    if as_json:
        print_json(list_json(list_profiles()))
    else:
        print(list_text(list_profiles()))


def _open_reports(
    stack: ExitStack,
    csv_file: Path | None,
    junit_file: Path | None,
    profile: Profile,
    measures: Sequence[str],
) -> list[Show]:
    from melmill.pipelines.cli.check_reports import csv_report, junit_report

    reports: list[Show] = []
    if csv_file is not None:
        reports.append(stack.enter_context(csv_report(csv_file, measures)))
    if junit_file is not None:
        reports.append(stack.enter_context(junit_report(junit_file, profile.name)))
    return reports


@contextmanager
def _showing(as_json: bool, quiet: bool) -> Iterator[Show]:
    """Yield a function that prints a result; show progress meanwhile."""
    is_terminal = sys.stdout.isatty()
    with (_showing_in_terminal if is_terminal else _showing_lines)(as_json, quiet) as show:
        yield show


@contextmanager
def _showing_lines(as_json: bool, quiet: bool) -> Iterator[Show]:
    from melmill.pipelines.cli.check_texts import recording_json, recording_line
    from melmill.pipelines.run.progress import counting

    numbers = itertools.count(1)
    with counting("check", "recordings", quiet) as report:

        def show(checked: CheckedRecording) -> None:
            line = recording_json if as_json else recording_line
            print(line(checked), flush=True)
            report(next(numbers))

        yield show


@contextmanager
def _showing_in_terminal(as_json: bool, quiet: bool) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    from melmill.pipelines.cli.check_texts import recording_json, recording_line

    console = Console(file=sys.stdout)
    columns = SpinnerColumn(), TextColumn("{task.completed} recordings"), TimeElapsedColumn()
    # The progress is on the same console as the lines, which are printed above it.
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=quiet,
    ) as progress:
        task = progress.add_task("check", total=None)

        def show(checked: CheckedRecording) -> None:
            line = Text(recording_json(checked) if as_json else recording_line(checked))
            if not as_json:
                line.stylize("green" if checked.passes else "bold red", 0, 4)
            console.print(line, soft_wrap=True)
            progress.advance(task)

        yield show
