"""The last of an extraction: what a run has made becomes the dataset's next snapshot."""

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
from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.index.tables import shard_names
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.shards.receipts import Made, read_made
from melmill.transforms.snapshot.card import brief_statistics
from melmill.transforms.snapshot.delta import (
    Snapshot,
    commit,
    has_columns,
    open_table,
    read_history,
    read_snapshot,
    require_snapshot,
)
from melmill.transforms.snapshot.garbage import needed
from melmill.transforms.snapshot.totals import Totals, add_up
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import is_own, remove_empty_folders, remove_own
from melmill.transforms.store.ownership import claim

#: Files of a run's staging folder: when it began, and which attempts at it there are.
STARTED, _ATTEMPTS = "started", "attempts"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run's pipeline has left behind.

    Attributes
    ----------
    index, parts
        The index that it wrote, or, with nothing to do, the snapshot's.
    difference
        Of a refresh: recordings by what was done with them.
    todo
        Whether there was anything to do.
    """

    index: str
    parts: int = 0
    difference: dict[str, Any] = field(default_factory=dict)
    todo: bool = True


def read_outcome(job: ExtractJob) -> Outcome:
    """Read what the pipeline has left; ``FileNotFoundError`` where it is not there."""
    outcome = json.loads(job.store.read(job.outcome))
    del outcome["files"]
    return Outcome(**outcome)


def require_outcome(job: ExtractJob) -> Outcome:
    """Read what the pipeline has left; ``DatasetError`` where it is not there."""
    try:
        return read_outcome(job)
    except FileNotFoundError as error:
        raise not_shared(job.store.root) from error


def finish(
    job: ExtractJob, configuration: dict[str, Any], current: OpenSnapshot | None, outcome: Outcome
) -> tuple[OpenSnapshot, bool]:
    """Commit what a run has made, describe it, and remove the run's working files.

    Done again, it changes nothing. Once the commit is made, nothing of the run's working files is
    needed: another run, which the commit has overtaken, may remove them.

    Parameters
    ----------
    job
        What was extracted from where to where.
    configuration
        The recipe, to be kept with the snapshot.
    current
        The snapshot that the run began with.
    outcome
        Of its pipeline.

    Returns
    -------
    (OpenSnapshot, bool)
        The dataset's snapshot, and whether this commit made it.

    Raises
    ------
    TooManyFailuresError
        Nothing was committed.
    ConflictError
        Another run has committed meanwhile.
    """
    if current is not None and not outcome.todo:
        leave(job)
        return current, False
    totals = add_up(job.store, outcome.index)
    # Without any recording, a dataset that is there becomes empty, and a new one is a mistake.
    if current is None or totals.recordings:
        _check_failures(totals, job, outcome)
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
    )
    return commit_and_describe(job, snapshot, totals), True


def commit_and_describe(job: ExtractJob, snapshot: Snapshot, totals: Totals) -> OpenSnapshot:
    """Commit a snapshot that a run has made, write its side files, and tidy up after the run."""
    version = commit(job.store, snapshot, job.schema.table())
    found = require_snapshot(job.store)
    overtaken = found.run != job.attempt
    made = replace(snapshot, version=version, rows=totals.rows) if overtaken else found
    opened = OpenSnapshot(job.store, made).knowing(totals, job.schema)
    if not overtaken:
        # Another run's side files are not to be overwritten.
        opened.write_card()
    discard(job)
    return opened


def discard(job: ExtractJob) -> None:
    """Remove what a run has made and no kept snapshot holds, and the run's working files."""
    _discard(job.store, job.staging, _attempt(job))


def _discard(store: Store, staging: str, attempt: str = "") -> None:
    others = set(store.names(f"{staging}/{_ATTEMPTS}")) - {attempt}
    gone, coming = _unneeded(store, read_made(store, staging))
    store.remove_files(gone)
    remove_empty_folders(store, gone)
    # What another attempt has announced and not put there yet, it must be able to tidy up.
    kept = {*coming, *others, f"{staging}/{STARTED}"} if coming and others else set()
    remove_own(store, staging, kept)


def _unneeded(store: Store, made: Sequence[Made]) -> tuple[list[str], list[str]]:
    """Name the files of a run that no kept snapshot needs, and announcements of what is coming."""
    current = require_snapshot(store)
    shards = set(shard_names(store, current.index))
    committed = {current.index, *shards}
    left = [
        one
        for one in made
        if {one.shard, one.index}.isdisjoint(committed) and current.taken_down not in one.files
    ]
    if not left:
        return [], []
    # The same run, done before, may have committed what an earlier snapshot still holds.
    need = needed(store, [past for past in read_history(store) if past.kept])
    gone: list[str] = []
    coming: list[str] = []
    for one in left:
        if one.index and one.index not in need.indexes:
            gone += store.names(f"index/{one.index}")
        there = [name for name in one.files if store.size(name) is not None]
        gone += [name for name in there if not need.has(name)]
        coming += [one.name] if len(there) < len(one.files) else []
    return [name for name in gone if is_own(name)], coming


def tidy_up_after(store: Store, committed: Snapshot) -> None:
    """Remove the working files of the run that committed a snapshot, if it was killed after that.

    Whoever else works with them works from the snapshot before, in vain.
    """
    if committed.run:
        _discard(store, f"staging/{committed.run.partition('-')[0]}")


def begin(job: ExtractJob) -> ExtractJob:
    """Write down that a run begins; give the job of this attempt at it.

    When it began is what an interrupted attempt wrote down, which this one goes on with.
    """
    job = replace(job, attempt=f"{job.run_id}-{uuid.uuid4().hex}")
    claim(job.store)
    # The folder is in use from now on, whatever it held before: see melmill gc.
    job.store.put(_attempt(job), b"")
    return replace(job, began_ms=_first_began_ms(job))


def leave(job: ExtractJob) -> None:
    """End an attempt that has nothing to do: others may be working in the same folder."""
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
    """Where another run committed meanwhile, leave nothing of this one, and say so.

    Both may use one staging folder, which the first to commit removes: then this one fails at
    whatever it needs next.

    Parameters
    ----------
    job
        What runs.
    current
        The snapshot that it started from; ``None`` where there was none.
    jobs
        More that have made something, looked at when it is needed.

    Raises
    ------
    ConflictError
        Another run committed.
    """
    try:
        yield
    except Exception as error:
        # Each runner has a class of its own for what went wrong on a worker.
        found = read_snapshot(job.store) if "_delta_log" in job.store.top_names() else None
        before = current.snapshot.version if current else -1
        if found is None or found.version == before or found.run == job.attempt:
            raise
        for one in (job, *jobs):
            discard(one)
        raise ConflictError(
            f"another run committed version {found.version} to {job.store.root} while this one "
            f"was working from {f'version {before}' if current else 'an empty folder'}; nothing of "
            "this one is left: run the same command again to see what is left to do"
        ) from error


def _dataset_version(job: ExtractJob, current: OpenSnapshot | None) -> int:
    if current is None:
        return 1
    return current.snapshot.dataset_version + changes_schema(job, current)


def changes_schema(job: ExtractJob, current: OpenSnapshot) -> bool:
    """Whether the job's rows have other columns, or ``mel`` another shape, than the dataset's."""
    table = open_table(job.store)
    if table is None:
        return False
    if not has_columns(table, Schema.from_arrow(job.schema.table())):
        return True
    return (current.schema.n_mels, current.schema.n_frames) != job.features.shape


def commit_index(
    index: str, job: ExtractJob, configuration: dict[str, Any], began_with: int
) -> int:
    """Finish on a worker; gives the snapshot's version. A retry finds it committed.

    Raises
    ------
    DatasetError
        The dataset is not in the version that the job began with: -1 for none.
    """
    found = read_snapshot(job.store)
    current = OpenSnapshot(job.store, found) if found else None
    version = found.version if found else -1
    if found and current and (found.run, found.index) == (job.attempt, index):
        current.write_card()
        discard(job)
        return version
    if version != began_with:
        discard(job)
        raise DatasetError(
            f"{job.store.root}: was at version {began_with} when this job was described, and is at "
            f"{version} now; nothing was committed"
        )
    try:
        outcome = read_outcome(job)
    except FileNotFoundError:
        # There was nothing to do, and that was tidied up.
        if found is not None and found.index == index:
            return version
        raise not_shared(job.store.root) from None
    with discarding_the_overtaken(job, current):
        return finish(job, configuration, current, outcome)[0].snapshot.version


def _check_failures(totals: Totals, job: ExtractJob, outcome: Outcome) -> None:
    allowed, index = job.limits.max_failure_ratio, outcome.index
    if totals.failure_ratio > allowed:
        raise TooManyFailuresError(
            f"{totals.recordings['failed']:,} of {totals.recordings.total():,} recordings failed "
            f"({totals.failure_ratio:.1%}, and limits.max_failure_ratio allows {allowed:.1%}); "
            f"nothing was committed. Every failure is in {job.store.root}/index/{index}/\n"
            + "\n".join(failure_lines(totals))
        )
    if not totals.rows:
        raise TooManyFailuresError(
            f"no recording gives any row: {totals.recordings['failed']:,} failed, "
            f"{totals.recordings['skipped']:,} were shorter than a chunk (chunk.short is drop), "
            f"{outcome.difference.get('excluded', 0):,} were left out by catalogue.exclude; "
            f"nothing was committed. Every failure is in {job.store.root}/index/{index}/\n"
            + "\n".join(failure_lines(totals))
        )
