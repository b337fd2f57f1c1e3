"""The commands for a dataset's snapshots: history, cleanup, takedown and verification."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from melmill.pipelines.cli import snapshot_texts, verification_texts
from melmill.pipelines.cli.app import (
    PASS_THROUGH,
    DatasetArgument,
    JsonOption,
    QuietOption,
    RunnerConfigOption,
    RunnerOption,
    SingleWriterOption,
    StorageOption,
    WorkersOption,
    app,
    open_store,
    print_json,
)
from melmill.pipelines.cli.exit_status import Exit, reporting_errors
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import number_of

VersionArgument = Annotated[
    int, typer.Argument(metavar="VERSION", min=0, help="A version that melmill history lists.")
]


@app.command()
def history(
    dataset: DatasetArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """List the versions of a dataset, the latest first.

    \b
    melmill history dataset/
    """
    from melmill.pipelines.snapshots.history import history as run

    with reporting_errors():
        snapshots = run(open_store(dataset, storage_option))
    if as_json:
        print_json({"dataset": dataset, "snapshots": snapshots})
    else:
        print(snapshot_texts.history_text(snapshots))


@app.command()
def failures(
    dataset: DatasetArgument,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table in CSV, with a header.")
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """List the recordings that failed, or are partial, with cause and message.

    With --json, each line is an object.

    \b
    melmill failures dataset/
    melmill failures dataset/ --csv > failures.csv
    """
    from melmill.pipelines.snapshots.open import OpenSnapshot
    from melmill.transforms.index.tables import read_index

    with reporting_errors():
        opened = OpenSnapshot.current(open_store(dataset, storage_option))
        rows = read_index(opened.store, opened.snapshot.index, "failures")
        if as_csv:
            snapshot_texts.write_failures_csv(rows, sys.stdout)
        else:
            for row in rows:
                print(snapshot_texts.failure_line(row, as_json))


@app.command()
def diff(
    dataset: DatasetArgument,
    before: Annotated[int, typer.Argument(metavar="A", min=0, help="A version.")],
    after: Annotated[int, typer.Argument(metavar="B", min=0, help="Another version.")],
    every: Annotated[
        bool,
        typer.Option(
            "--list", help="List every recording, one per line (with --json, as an object)."
        ),
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Print how two versions of a dataset differ.

    Counts the recordings and rows that were added, changed and removed.

    \b
    melmill diff dataset/ 3 5
    melmill diff dataset/ 3 5 --list
    """
    from melmill.pipelines.snapshots.history import compare, count_changes

    with reporting_errors():
        changes = compare(open_store(dataset, storage_option), before, after)
        if every:
            for change in changes:
                print(snapshot_texts.change_line(change, as_json))
            return
        counted = count_changes(changes)
    if as_json:
        print_json({"dataset": dataset, "from": before, "to": after, **counted})
    else:
        print(snapshot_texts.diff_text(before, after, counted))


@app.command()
def rollback(
    dataset: DatasetArgument,
    version: VersionArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Restore the content of an earlier version.

    Commits a new version with the content of the earlier version. The next refresh updates the
    dataset from its catalogue again.

    \b
    melmill rollback dataset/ 3
    """
    from melmill.pipelines.snapshots.history import rollback as run

    with reporting_errors():
        opened = run(open_store(dataset, storage_option), version)
        if as_json:
            print_json(snapshot_texts.snapshot_json(dataset, opened))
        else:
            print(snapshot_texts.rollback_text(dataset, version, opened))


@app.command()
def checkout(
    dataset: DatasetArgument,
    version: VersionArgument,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="An empty or new folder.")],
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Write the card and the file list of an earlier version to a folder.

    The dataset does not change.

    \b
    melmill checkout dataset/ 3 dataset-3/
    python -c 'import datasets; datasets.load_dataset("dataset-3")'
    """
    from melmill.pipelines.snapshots.history import checkout as run

    with reporting_errors():
        totals = run(open_store(dataset, storage_option), version, output)
    if as_json:
        print_json({"dataset": dataset, "version": version, "output": str(output)})
    else:
        print(snapshot_texts.checkout_text(dataset, version, output, totals))


@app.command()
def gc(
    dataset: DatasetArgument,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            min=1,
            help="Number of snapshots to keep. Default: retention.keep_snapshots.",
        ),
    ] = None,
    keep_days: Annotated[
        float | None,
        typer.Option(
            "--keep-days",
            min=0,
            help="Also keep the snapshots of the last N days. Default: retention.keep_days.",
        ),
    ] = None,
    grace_hours: Annotated[
        float | None,
        typer.Option(
            "--grace-hours",
            min=0,
            help="Keep files and snapshots from the last N hours. Default: "
            "retention.grace_hours. N must be longer than a run takes, or gc breaks the run.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove the files that no kept version needs.

    Removes shards, indexes and files of interrupted runs. Removes only files that melmill made.

    \b
    melmill gc dataset/ --dry-run
    melmill gc dataset/ --keep 5
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.snapshots.gc import collect
    from melmill.pipelines.snapshots.open import OpenSnapshot

    with reporting_errors(), counting("gc", "files", quiet) as report:
        store = open_store(dataset, storage_option)
        options = {"keep_snapshots": keep, "keep_days": keep_days, "grace_hours": grace_hours}
        given = {name: value for name, value in options.items() if value is not None}
        retention = OpenSnapshot.current(store).recipe.retention.model_copy(update=given)
        collected = collect(store, retention, dry_run=dry_run, report=report)
    if as_json:
        print_json(snapshot_texts.gc_json(dataset, collected, dry_run))
    else:
        print(snapshot_texts.gc_text(dataset, collected, dry_run))


@app.command(context_settings=PASS_THROUGH)
def compact(
    context: typer.Context,
    dataset: DatasetArgument,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    runner: RunnerOption = None,
    runner_config: RunnerConfigOption = None,
    workers: WorkersOption = 0,
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge small shards into fewer, larger shards.

    The rows stay the same. Commits the result as a new version.

    \b
    melmill compact dataset/
    """
    from melmill.pipelines.compact import compact as run
    from melmill.pipelines.run.options import pipeline_options
    from melmill.pipelines.run.progress import showing_progress

    with reporting_errors(context):
        options = pipeline_options(runner, workers, context.args, runner_config)
        store = open_store(dataset, storage_option)
        with showing_progress("compact", quiet) as address:
            compaction = run(store, options, address=address, single_writer=single_writer)
    if as_json:
        print_json(snapshot_texts.compaction_json(dataset, compaction))
    else:
        print(snapshot_texts.compaction_text(dataset, compaction))


@app.command()
def takedown(
    dataset: DatasetArgument,
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI...",
            help="The recordings: a URI, a name below the catalogue's root, or a recording_id.",
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase without asking for confirmation.")
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Erase recordings permanently from every kept version.

    No refresh brings them back. Lists the exports that may hold them: a takedown does not change
    exports.

    \b
    melmill takedown dataset/ s3://bucket/songs/a.mp3 --yes
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.takedown import takedown as run

    with reporting_errors():
        _require_consent(yes, f"Erase {number_of(len(uris), 'recording')} from {dataset} for good?")
    with reporting_errors(), counting("takedown", "indexes", quiet) as report:
        store = open_store(dataset, storage_option)
        result = run(store, uris, single_writer=single_writer, report=report)
    if as_json:
        print_json(snapshot_texts.takedown_json(dataset, result))
    else:
        print(snapshot_texts.takedown_text(dataset, result))


def _require_consent(yes: bool, question: str) -> None:
    """Ask for consent at a terminal; elsewhere raise ``ConfigError`` without ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} There is no terminal to ask: add --yes to erase them")
    typer.confirm(question, abort=True)


@app.command()
def verify(
    dataset: DatasetArgument,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=10_000, help="Number of rows to draw at random.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    catalogue_storage_option: Annotated[
        list[str],
        typer.Option(
            "--catalogue-storage-option",
            metavar="KEY=VALUE",
            help="An option of fsspec for the recordings' store; the dataset does not store it.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recompute a sample of rows with librosa, and compare them.

    Reads the source recordings. The exit status is 1 if a row differs by more than float32
    rounding explains, or if no row could be compared.

    \b
    melmill verify dataset/ --sample 200
    """
    from melmill.pipelines import api
    from melmill.pipelines.config import read_storage_options

    with reporting_errors():
        option = "--catalogue-storage-option"
        verification = api.verify(
            dataset,
            sample=sample,
            seed=seed,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            catalogue_storage_options=dict(read_storage_options(option, catalogue_storage_option)),
            progress=not quiet,
        )
    if as_json:
        print_json(verification_texts.verification_json(dataset, verification))
    else:
        print(verification_texts.verification_text(dataset, verification))
    if not verification.passed:
        raise typer.Exit(Exit.FAILED)
