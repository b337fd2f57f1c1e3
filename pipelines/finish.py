"""The last of an extraction: what a run has made becomes the dataset's next snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transforms.errors import DatasetError
from transforms.job import ExtractJob
from transforms.storage.card import brief_statistics, write_card
from transforms.storage.index import read_shards
from transforms.storage.shards import remove_withdrawn
from transforms.storage.snapshot import Snapshot, commit, read_snapshot, require_snapshot
from transforms.storage.totals import Totals, add_up, ordered_shards


class TooManyFailuresError(Exception):
    """More recordings failed than ``limits.max_failure_ratio`` allows; nothing is committed."""


def finish(
    job: ExtractJob, configuration: dict[str, Any], current: Snapshot | None, index: str
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
    index
        Name of the index that it wrote.

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
    totals = add_up(job.store, index)
    _check_failures(totals, job, index)
    snapshot = Snapshot(
        version=current.version if current else -1,
        index=index,
        configuration=configuration,
        catalogue=job.catalogue.uri,
        features=job.features.canonical(),
        statistics=brief_statistics(totals),
    )
    # Limits are no part of what a dataset holds.
    same = current is not None and current.index == index
    committed = not same and _commit(job, snapshot)
    snapshot = require_snapshot(job.store)
    write_card(job.store, snapshot, totals, job.schema)
    remove_withdrawn(job, {shard.name for shard in read_shards(job.store, index)})
    job.store.remove(job.staging)
    return snapshot, totals, committed


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
    snapshot, _, _ = finish(job, configuration, current, index)
    return snapshot.version


def _commit(job: ExtractJob, snapshot: Snapshot) -> bool:
    """Commit a snapshot; false where another run has committed the very same meanwhile."""
    shards = list(ordered_shards(job.store, snapshot.index))
    try:
        commit(job.store, snapshot, shards, table_schema(job))
    except DatasetError:
        found = read_snapshot(job.store)
        if found is None or replace(found, version=snapshot.version) != snapshot:
            raise
        return False
    return True


def table_schema(job: ExtractJob) -> Any:
    """Schema of the Delta table: the rows', and the partition column."""
    import pyarrow as pa

    return job.schema.arrow().append(pa.field("split", pa.string())).remove_metadata()


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
