"""The last step of an extraction: commit what a run has made as the dataset's next snapshot."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deltalake import Schema

from melmill.pipelines.run.errors import TooManyFailuresError
from melmill.pipelines.run.launch import not_shared
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.summary import failure_lines
from melmill.transforms.core.errors import ConfigError, ConflictError, DatasetError
from melmill.transforms.core.naming import number_of
from melmill.transforms.index.tables import shard_names
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.refusals import refusal_of
from melmill.transforms.plan.split_shares import too_few
from melmill.transforms.shards.receipts import Made, read_made
from melmill.transforms.side_tables.side_table import SideTable, kept_tables
from melmill.transforms.snapshot.card import brief_statistics
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import (
    Snapshot,
    has_columns,
    open_table,
    read_history,
    read_snapshot,
    require_snapshot,
)
from melmill.transforms.snapshot.needed_files import needed
from melmill.transforms.snapshot.totals import Totals, add_up
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import (
    is_own,
    remove_empty_folders,
    remove_own,
    side_table_of,
)
from melmill.transforms.store.ownership import claim

#: Names in a run's staging folder: the file with the run's start time, the folder of attempts.
STARTED, _ATTEMPTS = "started", "attempts"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome that a run's pipeline has written to the store.

    Attributes
    ----------
    index, parts
        The name of the index and its number of parts: the new index, or, if there was nothing to
        do, the current snapshot's index.
    difference
        The numbers of recordings by what a refresh did with them.
    todo
        Whether there was anything to do.
    """

    index: str
    parts: int = 0
    difference: dict[str, Any] = field(default_factory=dict)
    todo: bool = True


def read_outcome(job: ExtractJob) -> Outcome:
    """Return the outcome of the pipeline; raise ``FileNotFoundError`` if it is missing."""
    outcome = json.loads(job.store.read(job.outcome))
    del outcome["files"]
    return Outcome(**outcome)


def require_outcome(job: ExtractJob) -> Outcome:
    """Return the outcome of the pipeline; raise ``DatasetError`` if it is missing."""
    try:
        return read_outcome(job)
    except FileNotFoundError as error:
        raise not_shared(job.store.root) from error


def finish(
    job: ExtractJob, configuration: dict[str, Any], current: OpenSnapshot | None, outcome: Outcome
) -> tuple[OpenSnapshot, bool]:
    """Commit what a run has made, write the side files, and remove the run's working files.

    A second call changes nothing. After the commit, the run's working files are not needed:
    another run that started before the commit may remove them.

    Parameters
    ----------
    job
        The extraction: its catalogue, output and settings.
    configuration
        The recipe, to be stored with the snapshot.
    current
        The snapshot that the run started from; ``None`` for none.
    outcome
        The outcome of the pipeline.

    Returns
    -------
    (OpenSnapshot, bool)
        The dataset's snapshot, and whether this call committed it.

    Raises
    ------
    TooManyFailuresError
        Too many recordings failed; nothing was committed.
    ConflictError
        Another run committed first.
    """
    if current is not None and not outcome.todo:
        leave(job)
        return current, False
    totals = add_up(job.store, outcome.index)
    # Without any recording, an existing dataset becomes empty, but a new dataset is a mistake.
    if current is None or totals.recordings:
        _check_failures(totals, job, outcome)
        _check_splits(totals, job)
    before = current.snapshot if current else None
    snapshot = Snapshot(
        version=before.version if before else -1,
        index=outcome.index,
        configuration=configuration,
        catalogue=job.catalogue.uri,
        features=job.features.canonical(),
        statistics=brief_statistics(totals),
        operation="extract" if job.base.is_nothing else "refresh",
        parts=outcome.parts,
        listed_ms=job.began_ms,
        dataset_version=_dataset_version(job, current),
        taken_down=before.taken_down if before else "",
        run=job.attempt,
        side_tables=_side_tables(before, job),
        asked_shares=job.asked_shares,
    )
    return commit_and_describe(job, snapshot, totals), True


def commit_and_describe(job: ExtractJob, snapshot: Snapshot, totals: Totals) -> OpenSnapshot:
    """Commit a run's snapshot, write its side files, clean up the run, and return the snapshot."""
    version = commit(job.store, snapshot, job.schema.table())
    current = require_snapshot(job.store)
    overtaken = current.run != job.attempt
    committed = replace(snapshot, version=version, rows=totals.rows) if overtaken else current
    opened = OpenSnapshot(job.store, committed).knowing(totals, job.schema)
    if not overtaken:
        # If another run has committed since, the side files are its own: do not overwrite them.
        opened.write_card()
    discard(job)
    return opened


def discard(job: ExtractJob) -> None:
    """Remove the run's working files, and its other files that no kept snapshot needs."""
    _discard(job.store, job.staging, _attempt(job))


def _discard(store: Store, staging: str, attempt: str = "") -> None:
    other_attempts = set(store.names(f"{staging}/{_ATTEMPTS}")) - {attempt}
    unneeded, pending = _unneeded(store, read_made(store, staging))
    store.remove_files(unneeded)
    remove_empty_folders(store, unneeded)
    # Another attempt may still write what it has announced, and must be able to clean it up.
    working = {*pending, *other_attempts, f"{staging}/{STARTED}"}
    remove_own(store, staging, working if pending and other_attempts else set())


def _unneeded(store: Store, made: Sequence[Made]) -> tuple[list[str], list[str]]:
    """Return a run's files that no kept snapshot needs, and announcements of unwritten files."""
    current = require_snapshot(store)
    shards = set(shard_names(store, current.index))
    committed = {current.index, *shards, *(table.name for table in current.side_tables)}
    uncommitted = [
        entry
        for entry in made
        if {entry.shard, entry.index, *map(side_table_of, entry.files)}.isdisjoint(committed)
        and current.taken_down not in entry.files
    ]
    if not uncommitted:
        return [], []
    # An earlier attempt of this run may have committed files that an earlier snapshot still needs.
    need = needed(store, [past for past in read_history(store) if past.kept])
    unneeded: list[str] = []
    pending: list[str] = []
    for entry in uncommitted:
        if entry.index and entry.index not in need.indexes:
            unneeded += store.names(f"index/{entry.index}")
        present = [name for name in entry.files if store.size(name) is not None]
        unneeded += [name for name in present if not need.has(name)]
        pending += [entry.name] if len(present) < len(entry.files) else []
    return [name for name in unneeded if is_own(name)], pending


def tidy_up_after(store: Store, committed: Snapshot) -> None:
    """Remove the working files of the run that committed a snapshot, if it left any.

    A run that is killed after its commit leaves them. Another run that uses the same files
    started from the snapshot before, so it cannot commit.
    """
    if committed.run:
        _discard(store, f"staging/{committed.run.partition('-')[0]}")


def begin(job: ExtractJob) -> ExtractJob:
    """Record that an attempt of a run begins; return the job of this attempt.

    If the attempt continues an interrupted one, the start time is that of the first attempt.
    """
    job = replace(job, attempt=f"{job.run_id}-{uuid.uuid4().hex}")
    claim(job.store)
    # From now on, melmill gc sees that the staging folder is in use.
    job.store.put(_attempt(job), b"")
    return replace(job, began_ms=_first_began_ms(job))


def leave(job: ExtractJob) -> None:
    """End an attempt that has nothing to do; keep the folder if other attempts use it."""
    job.store.remove(_attempt(job))
    if not any(True for _ in job.store.names(f"{job.staging}/{_ATTEMPTS}")):
        discard(job)


def _first_began_ms(job: ExtractJob) -> int:
    try:
        return int(job.store.read(_began(job)))
    except FileNotFoundError:
        now_ms = time.time_ns() // 1_000_000
        job.store.put(_began(job), str(now_ms).encode())
        return now_ms


def _attempt(job: ExtractJob) -> str:
    return f"{job.staging}/{_ATTEMPTS}/{job.attempt}"


def _began(job: ExtractJob) -> str:
    return f"{job.staging}/{STARTED}"


@contextlib.contextmanager
def discarding_the_overtaken(
    job: ExtractJob, current: OpenSnapshot | None, jobs: Iterable[ExtractJob] = ()
) -> Iterator[None]:
    """Turn an error in the block into ``ConflictError`` if another run committed first.

    Then remove everything that this run has made. Both runs may use the same staging folder. The
    run that commits first removes the folder, and the other run fails when it next needs a file.

    Parameters
    ----------
    job
        The running job.
    current
        The snapshot that the job started from; ``None`` if there was none.
    jobs
        More jobs that may have made files; read only after an error.

    Raises
    ------
    ConflictError
        Another run committed first.
    """
    try:
        yield
    except Exception as error:
        # Each runner has its own error class for errors on workers: catch all classes.
        latest = read_snapshot(job.store) if "_delta_log" in job.store.top_names() else None
        before = current.snapshot.version if current else -1
        if latest is None or latest.version == before or latest.run == job.attempt:
            raise
        for overtaken in (job, *jobs):
            discard(overtaken)
        raise ConflictError(
            f"another run committed version {latest.version} to {job.store.root} while this run "
            f"worked from {f'version {before}' if current else 'an empty folder'}; nothing of "
            "this run is left: run the same command again to do what is still missing"
        ) from error


def _dataset_version(job: ExtractJob, current: OpenSnapshot | None) -> int:
    if current is None:
        return 1
    return current.snapshot.dataset_version + changes_schema(job, current)


def _side_tables(before: Snapshot | None, job: ExtractJob) -> tuple[SideTable, ...]:
    if before is None or job.base.is_nothing:
        return ()
    return kept_tables(before.side_tables, job.features.canonical())


def changes_schema(job: ExtractJob, current: OpenSnapshot) -> bool:
    """Return whether the job's columns, or its shape of ``mel``, differ from the dataset's."""
    table = open_table(job.store)
    if table is None:
        return False
    if not has_columns(table, Schema.from_arrow(job.schema.table())):
        return True
    return current.schema.features != job.features.columns


def commit_index(
    index: str, job: ExtractJob, configuration: dict[str, Any], began_with: int
) -> int:
    """Commit on a worker, and return the snapshot's version; a retry does not commit again.

    Raises
    ------
    DatasetError
        The dataset's version is not `began_with` (-1 for no dataset).
    """
    snapshot = read_snapshot(job.store)
    current = OpenSnapshot(job.store, snapshot) if snapshot else None
    version = snapshot.version if snapshot else -1
    if snapshot and current and (snapshot.run, snapshot.index) == (job.attempt, index):
        current.write_card()
        discard(job)
        return version
    if version != began_with:
        discard(job)
        raise DatasetError(
            f"{job.store.root}: was at version {began_with} when this job was created, and is at "
            f"version {version} now; nothing was committed; create the job again"
        )
    try:
        outcome = read_outcome(job)
    except FileNotFoundError:
        # There was nothing to do, and an earlier try has removed the outcome.
        if snapshot is not None and snapshot.index == index:
            return version
        raise not_shared(job.store.root) from None
    with discarding_the_overtaken(job, current):
        return finish(job, configuration, current, outcome)[0].snapshot.version


def _check_splits(totals: Totals, job: ExtractJob) -> None:
    """Raise ``ConfigError`` if a split has fewer recordings than the recipe wants."""
    numbers = {name: content.recordings for name, content in totals.splits.items()}
    at_least = job.limits.min_split_recordings
    if totals.rows and (reason := too_few(job.asked_shares, numbers, at_least)):
        raise ConfigError(
            f"{reason}; nothing was committed. Set a smaller split.min_recordings, and run the "
            "command again to commit the finished shards, or divide the recordings otherwise "
            "(split.fractions, split.by, split.seed)"
        )


def _check_failures(totals: Totals, job: ExtractJob, outcome: Outcome) -> None:
    allowed, index = job.limits.max_failure_ratio, outcome.index
    refusal = refusal_of(totals.recordings, totals.failures, totals.rows, job.limits)
    may_pass = refusal is not None and refusal.may_pass
    if job.limits.too_many_failed(totals.recordings["failed"], totals.recordings.total()):
        raise TooManyFailuresError(
            f"{totals.recordings['failed']:,} of "
            f"{number_of(totals.recordings.total(), 'recording')} failed "
            f"({totals.failure_ratio:.1%}, and limits.max_failure_ratio allows {allowed:.1%}); "
            f"nothing was committed. All failures are listed in {job.store.root}/index/{index}/\n"
            + "\n".join(failure_lines(totals)),
            may_pass=may_pass,
        )
    if not totals.rows and not totals.recordings["deselected"]:
        raise TooManyFailuresError(
            f"no recording has any rows: {totals.recordings['failed']:,} failed, "
            f"{totals.recordings['skipped']:,} were shorter than a chunk (chunk.short is drop), "
            f"{outcome.difference.get('excluded', 0):,} were left out by catalogue.exclude, "
            f"{outcome.difference.get('other_license', 0):,} by catalogue.require_license; "
            f"nothing was committed. All failures are listed in {job.store.root}/index/{index}/\n"
            + "\n".join(failure_lines(totals)),
            may_pass=may_pass,
        )
