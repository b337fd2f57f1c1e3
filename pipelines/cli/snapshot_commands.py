"""Commands for a dataset's snapshots over time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from melmill.pipelines.cli import snapshot_texts, verification_texts
from melmill.pipelines.cli.app import (
    PASS_THROUGH,
    DatasetArgument,
    Exit,
    JsonOption,
    QuietOption,
    RunnerConfigOption,
    RunnerOption,
    SingleWriterOption,
    StorageOption,
    WorkersOption,
    app,
    beam_options,
    open_store,
    print_json,
    reporting_errors,
)
from melmill.transforms.core.errors import ConfigError

VersionArgument = Annotated[
    int, typer.Argument(metavar="VERSION", min=0, help="As melmill history names it.")
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
        found = run(open_store(dataset, storage_option))
    if as_json:
        print_json({"dataset": dataset, "snapshots": found})
    else:
        print(snapshot_texts.history_text(found))


@app.command()
def diff(
    dataset: DatasetArgument,
    before: Annotated[int, typer.Argument(metavar="A", min=0, help="A version.")],
    after: Annotated[int, typer.Argument(metavar="B", min=0, help="Another version.")],
    every: Annotated[
        bool,
        typer.Option("--list", help="Name every recording, one a line (with --json, an object)."),
    ] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
) -> None:
    """Say how two versions of a dataset differ.

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
    """Make an earlier version the dataset's content again.

    Commits a new version that holds what the earlier one held. The next refresh brings the
    dataset up to date again.

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
    """Write the card and the list of files of an earlier version.

    The dataset stays as it is.

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
        typer.Option("--keep", min=1, help="Snapshots; retention.keep_snapshots without."),
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", min=0, help="retention.keep_days without.")
    ] = None,
    grace_hours: Annotated[
        float | None,
        typer.Option(
            "--grace-hours",
            min=0,
            help="Younger files stay, and what was current since then; retention.grace_hours "
            "without. Less than a run takes would break it.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing.")] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove the files that no kept version needs.

    Removes shards, indexes and what interrupted runs left, all of them files that melmill made.

    \b
    melmill gc dataset/ --dry-run
    melmill gc dataset/ --keep 5
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.snapshots.gc import collect
    from melmill.pipelines.snapshots.open import OpenSnapshot

    with reporting_errors(), counting("gc", "files", quiet) as report:
        store = open_store(dataset, storage_option)
        asked = {"keep_snapshots": keep, "keep_days": keep_days, "grace_hours": grace_hours}
        given = {name: value for name, value in asked.items() if value is not None}
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
    """Merge small shards into fewer, larger ones.

    The rows stay the same. The result is committed as a new version.

    \b
    melmill compact dataset/
    """
    from melmill.pipelines.compact import compact as run
    from melmill.pipelines.run.progress import showing_progress

    with reporting_errors():
        options = beam_options(runner, workers, context.args, runner_config)
        store = open_store(dataset, storage_option)
        with showing_progress("compact", quiet) as address:
            made = run(store, options, address=address, single_writer=single_writer)
    if as_json:
        print_json(snapshot_texts.compaction_json(dataset, made))
    else:
        print(snapshot_texts.compaction_text(dataset, made))


@app.command()
def takedown(
    dataset: DatasetArgument,
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI...", help="Or a name below the catalogue's root, or recording_id."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    single_writer: SingleWriterOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Erase recordings from every kept version, for good.

    No refresh brings them back. Exports that hold them are named, since no takedown reaches them.

    \b
    melmill takedown dataset/ s3://bucket/songs/a.mp3 --yes
    """
    from melmill.pipelines.run.progress import counting
    from melmill.pipelines.takedown import takedown as run

    with reporting_errors():
        _require_consent(yes, f"Erase {len(uris):,} recording(s) from {dataset} for good?")
    with reporting_errors(), counting("takedown", "indexes", quiet) as report:
        store = open_store(dataset, storage_option)
        made = run(store, uris, single_writer=single_writer, report=report)
    if as_json:
        print_json(snapshot_texts.takedown_json(dataset, made))
    else:
        print(snapshot_texts.takedown_text(dataset, made))


def _require_consent(yes: bool, question: str) -> None:
    """Ask at a terminal; elsewhere, ``ConfigError`` unless ``--yes`` answers."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is there to ask: say --yes to erase them")
    typer.confirm(question, abort=True)


@app.command()
def verify(
    dataset: DatasetArgument,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=10_000, help="Rows, drawn at random.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    storage_option: StorageOption = [],  # noqa: B006 - typer reads the default
    catalogue_storage_option: Annotated[
        list[str],
        typer.Option(
            "--catalogue-storage-option",
            metavar="KEY=VALUE",
            help="What fsspec opens the recordings' store with; no dataset stores it.",
        ),
    ] = [],  # noqa: B006 - typer reads the default
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compute a sample of rows again by librosa, and compare.

    Reads the source recordings. Exit status 1 if a row differs by more than float32 rounding
    explains, or if no row could be compared.

    \b
    melmill verify dataset/ --sample 200
    """
    from melmill.pipelines import api
    from melmill.pipelines.config import read_storage_options

    with reporting_errors():
        option = "--catalogue-storage-option"
        found = api.verify(
            dataset,
            sample=sample,
            seed=seed,
            storage_options=dict(read_storage_options("--storage-option", storage_option)),
            catalogue_storage_options=dict(read_storage_options(option, catalogue_storage_option)),
            progress=not quiet,
        )
    if as_json:
        print_json(verification_texts.verification_json(dataset, found))
    else:
        print(verification_texts.verification_text(dataset, found))
    if not found.passed:
        raise typer.Exit(Exit.FAILED)
