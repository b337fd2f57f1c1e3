"""Erases recordings: from the current snapshot, and from every kept one before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.finish import begin, discarding_the_overtaken, table_schema
from pipelines.gc import remove_all
from pipelines.maintenance import (
    base_of,
    describe,
    in_its_staging,
    job_of,
    mend_side_files,
    open_whole_snapshot,
    recipe_of,
    statistics_of,
)
from transforms.diffing import Dropped, Touched
from transforms.errors import ConfigError, DatasetError
from transforms.index import write_index
from transforms.job import ExtractJob
from transforms.storage.exclusive import require_exclusive_commits
from transforms.storage.index import read_batches, read_shards, shard_names
from transforms.storage.rewriting import rewrite_shard
from transforms.storage.snapshot import (
    Past,
    Snapshot,
    TakenDown,
    commit,
    read_history,
    require_snapshot,
)
from transforms.storage.store import Store


@dataclass(frozen=True, slots=True)
class Takedown:
    """What was erased.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    erased
        The recordings.
    versions
        Kept snapshots that held some of them, and hold them no more.
    rows
        Of them, in the snapshot that was current.
    files
        Names of the files that were removed.
    """

    snapshot: Snapshot
    erased: tuple[TakenDown, ...]
    versions: list[int]
    rows: int
    files: list[str]


@dataclass(slots=True)
class _Held:
    """What one index has of the recordings."""

    uris: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    shards: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def takedown(
    store: Store,
    names: Sequence[str],
    *,
    single_writer: bool = False,
    report: Callable[[int], None] = lambda number: None,
) -> Takedown:
    """Erase recordings from every kept snapshot, and record it; they do not come back.

    Their rows and what the indexes say of them are removed from the store: shards that held
    some are written anew without them, for the current snapshot by a commit; those of earlier
    snapshots take the place of the old ones in ``history``, ``checkout``, ``rollback`` and
    ``diff``. What other readers of Delta tables see of the versions before, by time travel, ends
    where they would need an erased file.

    Parameters
    ----------
    store
        The dataset.
    names
        URIs or ``recording_id``; a URI stands for all its segments.
    single_writer
        Whether the user warrants that no other run writes there meanwhile.
    report
        Called with the number of indexes written anew so far.

    Raises
    ------
    DatasetError
        No kept snapshot knows one of them.
    ConflictError
        Another run committed meanwhile; nothing was erased.
    """
    current = open_whole_snapshot(store)
    history = [past for past in read_history(store) if past.kept]
    held = {index: find(store, index, names) for index in {p.snapshot.index for p in history}}
    uris = {known: uri for one in held.values() for known, uri in one.uris.items()}
    erased_before = {one.recording_id: one.uri for one in current.taken_down}
    _require_known(store, names, uris | erased_before)
    if not uris:
        # An earlier takedown may have been interrupted when it had committed.
        mend_side_files(store, current)
        files = _erase(store, _replaced_indexes(history), set(erased_before))
        return Takedown(current, (), [], 0, files)
    job = _open(store, current, current)
    job = begin(job)
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    jobs = {job.staging: job}
    with discarding_the_overtaken(job, current, jobs.values()):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        erased = tuple(TakenDown(known, uri, now) for known, uri in sorted(uris.items()))
        replaced: dict[str, str] = {}
        for snapshot in {p.snapshot.index: p.snapshot for p in reversed(history)}.values():
            if held[snapshot.index].uris:
                report(len(replaced))
                replaced[snapshot.index] = _without(store, snapshot, current, held, jobs)
        index = replaced.get(current.index, current.index)
        snapshot = replace(
            current,
            index=index,
            operation="takedown",
            statistics=statistics_of(store, index),
            taken_down=(*current.taken_down, *erased),
            replaced=replaced,
            run=job.attempt,
        )
        commit(store, snapshot, table_schema(job))
    committed = require_snapshot(store)
    describe(store, committed, job.schema)
    for one in jobs:
        store.remove(one)
    # And what an earlier one left, that was interrupted.
    files = _erase(store, _replaced_indexes(history) | replaced, {*uris, *erased_before})
    versions = sorted(p.snapshot.version for p in history if p.snapshot.index in replaced)
    return Takedown(committed, erased, versions, held[current.index].rows, files)


def _open(store: Store, snapshot: Snapshot, current: Snapshot) -> ExtractJob:
    """Give the job that writes shards of a snapshot, named after the current one."""
    job = replace(job_of(store, snapshot), base=base_of(store, current))
    return in_its_staging(job)


def find(store: Store, index: str, names: Iterable[str]) -> _Held:
    """Find what an index has of some recordings, named by URI or ``recording_id``."""
    wanted = pa.array(sorted(set(names)), pa.string())
    found = _Held()
    for batch in read_batches(
        store, index, "recordings", ["recording_id", "uri", "rows", "shards"]
    ):
        mask = pc.or_(
            pc.is_in(batch["recording_id"], value_set=wanted),
            pc.is_in(batch["uri"], value_set=wanted),
        )
        for row in batch.filter(mask).to_pylist():
            found.uris[row["recording_id"]] = row["uri"]
            found.rows += row["rows"]
            for shard in row["shards"]:
                found.shards[shard].add(row["recording_id"])
    return found


def _require_known(store: Store, names: Iterable[str], uris: dict[str, str]) -> None:
    known = {*uris, *uris.values()}
    if unknown := sorted(set(names) - known):
        raise DatasetError(
            f"{store.root}: no kept snapshot has {', '.join(unknown)}; name recordings by their "
            "uri or recording_id as the index has them. Nothing was erased"
        )


def _without(
    store: Store,
    snapshot: Snapshot,
    current: Snapshot,
    held: dict[str, _Held],
    jobs: dict[str, ExtractJob],
) -> str:
    """Write a snapshot's index anew, and the shards that are concerned; give the index's name.

    A snapshot of an extractor that is no more cannot be written anew: it is no longer kept, for
    which ``""`` stands.
    """
    if not _can_be_written(snapshot):
        return ""
    job = _open(store, snapshot, current)
    jobs[job.staging] = job
    mine = held[snapshot.index]
    facts: list[Any] = [Dropped(recording_id) for recording_id in sorted(mine.uris)]
    for summary in read_shards(store, snapshot.index):
        if gone := mine.shards.get(summary.name):
            touched = [Touched(summary.name, recording_id) for recording_id in sorted(gone)]
            facts += rewrite_shard(summary, touched, job)
    return write_index(facts, replace(job, base=base_of(store, snapshot)))


def _can_be_written(snapshot: Snapshot) -> bool:
    try:
        return recipe_of(snapshot).features().canonical() == snapshot.features
    except ConfigError:
        return False


def _replaced_indexes(history: Iterable[Past]) -> dict[str, str]:
    return {k: v for past in history for k, v in past.snapshot.replaced.items()}


def _erase(store: Store, replaced: dict[str, str], erased: set[str]) -> list[str]:
    """Remove the old indexes, and every shard that holds some of the recordings."""
    there = {name.split("/")[1] for name in store.names("index")}
    needed = {past.snapshot.index for past in read_history(store) if past.kept}
    # Also of runs that were never committed.
    indexes = [
        name
        for name in sorted(there - needed)
        if name in replaced or find(store, name, erased).uris
    ]
    files = [file for folder in indexes for file in store.names(f"index/{folder}")]
    shards = _holding(store, erased)
    # The indexes last: as long as they are there, it is known that there is more to do.
    remove_all(store, [*shards, *files])
    return [*shards, *files]


def _holding(store: Store, erased: set[str]) -> list[str]:
    """Find the shards that hold some of the recordings, whether a snapshot names them or not."""
    wanted = pa.array(sorted(erased), pa.string())
    indexes = {past.snapshot.index for past in read_history(store) if past.kept}
    clean = {name for index in sorted(indexes) for name in shard_names(store, index)}
    found = []
    for folder in sorted(name for name in store.top_names() if name.startswith("split=")):
        for name in store.names(folder):
            shard = name.rpartition("/part-")[2].removesuffix(".parquet")
            if shard not in clean and _holds(store, name, wanted):
                split = folder.removeprefix("split=")
                # The twin first: it is found by the other one's name.
                found += [f"tfrecord/{split}/part-{shard}.tfrecord", name]
    return [name for name in found if store.size(name) is not None]


def _holds(store: Store, name: str, wanted: pa.Array) -> bool:
    try:
        with store.reading_shard(name) as file:
            ids = pq.read_table(file, columns=["recording_id"])["recording_id"]
    except DatasetError:
        # No snapshot needs it, and nobody can say what is in it.
        return True
    return bool(pc.any(pc.is_in(ids, value_set=wanted)).as_py())
