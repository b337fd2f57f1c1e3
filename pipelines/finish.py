"""The last of an extraction: what a run has made becomes the dataset's next snapshot."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

from deltalake import Schema

from pipelines.launch import not_shared
from transforms.errors import DatasetError
from transforms.job import ExtractJob
from transforms.storage.card import brief_statistics, write_card
from transforms.storage.index import shard_names
from transforms.storage.parquet import read_schema
from transforms.storage.schema import RowSchema
from transforms.storage.shards import made_shards, remove_files
from transforms.storage.snapshot import (
    Snapshot,
    commit,
    open_table,
    read_history,
    read_snapshot,
    require_snapshot,
    table_files,
)
from transforms.storage.totals import Totals, add_up, ordered_shards

#: Written to see whether it can be, and when it was.
STARTED = "started"


class TooManyFailuresError(Exception):
    """More recordings failed than ``limits.max_failure_ratio`` allows; nothing is committed."""


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
    said = json.loads(job.store.read(f"{job.staging}/outcome.json"))
    del said["files"]
    return Outcome(**said)


def require_outcome(job: ExtractJob) -> Outcome:
    """Read what the pipeline has left; ``DatasetError`` where it is not there."""
    try:
        return read_outcome(job)
    except FileNotFoundError as error:
        raise not_shared(job.store.root) from error


def finish(
    job: ExtractJob, configuration: dict[str, Any], current: Snapshot | None, outcome: Outcome
) -> tuple[Snapshot, Totals, bool]:
    """Commit what a run has made, describe it, and remove the run's working files.

    Done again, it changes nothing.

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
    (Snapshot, Totals, bool)
        The dataset's snapshot, what it holds, and whether this commit made it.

    Raises
    ------
    TooManyFailuresError
        Nothing was committed.
    DatasetError
        Another run has committed something else meanwhile.
    """
    index = outcome.index
    totals = add_up(job.store, index)
    _check_failures(totals, job, index)
    snapshot = Snapshot(
        version=current.version if current else -1,
        index=index,
        configuration=configuration,
        catalogue=job.catalogue.uri,
        features=job.features.canonical(),
        statistics=brief_statistics(totals),
        operation="refresh" if job.base else "extract",
        parts=outcome.parts,
        listed_ms=began_ms(job),
        dataset_version=_dataset_version(job, current),
        taken_down=current.taken_down if current else (),
    )
    # Limits are no part of what a dataset holds.
    same = current is not None and current.index == index
    committed = not same and _commit(job, snapshot)
    snapshot = require_snapshot(job.store)
    write_card(job.store, snapshot, totals, job.schema)
    _remove_unused(job)
    job.store.remove(job.staging)
    return snapshot, totals, committed


def _remove_unused(job: ExtractJob) -> None:
    """Remove shards that this run has made, and that are in no kept snapshot."""
    current = require_snapshot(job.store)
    held = set(shard_names(job.store, current.index))
    unused = [shard for shard in made_shards(job) if shard.name not in held]
    if unused:
        # The same run, done before, may have committed what an earlier snapshot still holds.
        indexes = {past.snapshot.index for past in read_history(job.store) if past.kept}
        held |= {name for index in indexes for name in shard_names(job.store, index)}
    for shard in unused:
        if shard.name not in held:
            remove_files(job.store, shard)


def forget(job: ExtractJob) -> None:
    """Take back what :func:`begin` wrote down."""
    for name in (_in_use(job), _began(job)):
        job.store.remove(name)


def begin(job: ExtractJob) -> None:
    """Write down when the run began, unless an interrupted one, which it goes on with, did."""
    # Its folder is in use from now on, whatever it held before: see melmill gc.
    job.store.put(_in_use(job), b"")
    if job.store.size(_began(job)) is None:
        job.store.put(_began(job), str(time.time_ns() // 1_000_000).encode())


def began_ms(job: ExtractJob) -> int:
    """When the run began, before anything was listed; milliseconds since 1970, 0 if unknown."""
    if job.store.size(_began(job)) is None:
        return 0
    return int(job.store.read(_began(job)))


def _in_use(job: ExtractJob) -> str:
    return f"{job.staging}/in-use"


def _began(job: ExtractJob) -> str:
    return f"{job.staging}/{STARTED}"


def _dataset_version(job: ExtractJob, current: Snapshot | None) -> int:
    if current is None:
        return 1
    return current.dataset_version + changes_schema(job)


def changes_schema(job: ExtractJob) -> bool:
    """Whether the job's rows have other columns, or ``mel`` another shape, than the dataset's."""
    table = open_table(job.store)
    if table is None:
        return False
    if Schema.from_arrow(table_schema(job)) != table.schema():
        return True
    name = next((name for name, _, _ in table_files(table)), None)
    if name is None:
        return False
    with job.store.reading_shard(name) as file:
        before, _ = read_schema(file)
    return (before.n_mels, before.n_frames) != job.features.shape


def discard(job: ExtractJob) -> None:
    """Remove what a run has made that was overtaken by another.

    Its shards' names are its own, but for those of runs that did the very same: what a kept
    snapshot holds stays.
    """
    _remove_unused(job)
    with contextlib.suppress(FileNotFoundError):
        made = read_outcome(job).index
        if made not in {past.snapshot.index for past in read_history(job.store)}:
            job.store.remove(f"index/{made}")
    job.store.remove(job.staging)


def commit_index(
    index: str, job: ExtractJob, configuration: dict[str, Any], began_with: int
) -> int:
    """Finish on a worker; gives the snapshot's version. A retry finds it committed.

    Raises
    ------
    DatasetError
        The dataset is not in the version that the job began with: -1 for none.
    """
    current = read_snapshot(job.store)
    version = current.version if current else -1
    if version != began_with and (current is None or current.index != index):
        raise DatasetError(
            f"{job.store.root}: was at version {began_with} when this job was described, and is at "
            f"{version} now; nothing was committed"
        )
    try:
        outcome = read_outcome(job)
    except FileNotFoundError:
        # Committed before, and tidied up, or there was nothing to do.
        if current is not None and current.index == index:
            return version
        raise not_shared(job.store.root) from None
    if not outcome.todo:
        job.store.remove(job.staging)
        return version
    snapshot, _, _ = finish(job, configuration, current, outcome)
    return snapshot.version


def _commit(job: ExtractJob, snapshot: Snapshot) -> bool:
    """Commit a snapshot; false where another run has committed the very same meanwhile."""
    shards = ordered_shards(job.store, snapshot.index)
    try:
        commit(job.store, snapshot, shards, table_schema(job))
    except DatasetError:
        found = read_snapshot(job.store)
        if found is None or job.base or not _is_same(found, snapshot):
            raise
        return False
    return True


def _is_same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two runs made the same, whenever that was."""
    return replace(one, version=0, listed_ms=0) == replace(other, version=0, listed_ms=0)


def table_schema(job: ExtractJob) -> Any:
    """Schema of the Delta table: the rows', and the partition column."""
    return table_schema_of(job.schema)


def table_schema_of(schema: RowSchema) -> Any:
    """Schema of a Delta table of such rows."""
    import pyarrow as pa

    return schema.arrow().append(pa.field("split", pa.string())).remove_metadata()


def _check_failures(totals: Totals, job: ExtractJob, index: str) -> None:
    allowed = job.limits.max_failure_ratio
    if totals.failure_ratio > allowed:
        raise TooManyFailuresError(
            f"{totals.recordings['failed']:,} of {totals.recordings.total():,} recordings failed "
            f"({totals.failure_ratio:.1%}, and limits.max_failure_ratio allows {allowed:.1%}); "
            f"nothing was committed. Every failure is in {job.store.root}/index/{index}/"
        )
    if not totals.rows:
        raise TooManyFailuresError(
            f"no recording gives any row: {totals.recordings['failed']:,} failed, "
            f"{totals.recordings['skipped']:,} were shorter than a chunk (chunk.short is drop); "
            f"nothing was committed. Every failure is in {job.store.root}/index/{index}/"
        )
