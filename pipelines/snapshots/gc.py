"""Remove the files that no kept snapshot needs: old shards, indexes, staging folders, orphans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.snapshot.delta import Past, read_history, require_snapshot
from melmill.transforms.snapshot.needed_files import (
    in_order_of_removal,
    list_own,
    needed,
    read_announced,
    read_records,
)
from melmill.transforms.store.folders import Store, StoreFile
from melmill.transforms.store.own_files import index_of, remove_empty_folders, run_of

_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a garbage collection.

    Attributes
    ----------
    kept
        The versions that are kept.
    expired
        The versions that can no longer be read.
    files
        The names of the removed files.
    size_bytes
        The total size of the removed files.
    """

    kept: list[int]
    expired: list[int]
    files: list[str]
    size_bytes: int


def collect(
    store: Store,
    retention: RetentionConfig,
    *,
    dry_run: bool = False,
    now_ms: int | None = None,
    report: Callable[[int], None] = lambda number: None,
) -> Collected:
    """Remove the files that no kept snapshot needs, and return what was removed.

    Parameters
    ----------
    store
        The dataset.
    retention
        The number and age of snapshots to keep, and how long files are kept that may belong to a
        running run.
    dry_run
        Whether to remove nothing, and only return what would be removed.
    now_ms
        The current time in milliseconds since 1970, for tests.
    report
        A function that is called with the number of files removed so far.

    Raises
    ------
    ConflictError
        Another run began or committed during the call.
    DatasetError
        There is no dataset, or a file cannot be removed.
    """
    opened = OpenSnapshot.current(store)
    current = opened.snapshot
    attempts = _attempts(store)
    full_history = read_history(store)
    history = [past for past in full_history if past.kept]
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    kept = choose(history, retention, now_ms)
    versions = {past.snapshot.version for past in kept}
    expired = [p.snapshot.version for p in history if p.snapshot.version not in versions]
    young_ms = now_ms - retention.grace_hours * _HOUR_MS
    garbage = _garbage(store, full_history, kept, young_ms)
    if require_snapshot(store).version != current.version:
        raise ConflictError(f"{store.root}: another run committed just now; run gc again")
    # A run that continues an old interrupted run may rely on its old shards.
    if _attempts(store) - attempts:
        raise ConflictError(f"{store.root}: a run began just now; run gc again")
    if not dry_run:
        opened.mend_side_files()
        remove_all(store, garbage, report)
    size_bytes = sum(garbage.values())
    return Collected(sorted(versions), sorted(expired), list(garbage), size_bytes)


def _attempts(store: Store) -> set[str]:
    """Return the files that mark the start of runs; all other files of a new run are young."""
    return {name for name in store.names("staging") if "/attempts/" in name}


def choose(history: Sequence[Past], retention: RetentionConfig, now_ms: int) -> list[Past]:
    """Return the snapshots to keep: the latest, and those that were recently current.

    Parameters
    ----------
    history
        The snapshots, the latest first.
    """
    recent_ms = max(retention.keep_days * _DAY_MS, retention.grace_hours * _HOUR_MS)
    kept = []
    ended_ms: float = float("inf")
    for number, past in enumerate(history):
        # A snapshot is current until the next one is committed.
        if number < retention.keep_snapshots or now_ms - ended_ms < recent_ms:
            kept.append(past)
        ended_ms = past.committed_ms
    return kept


def _garbage(
    store: Store, history: Sequence[Past], kept: Sequence[Past], young_ms: float
) -> dict[str, int]:
    """Return the size in bytes of each file to remove, in the order of removal."""
    own = list_own(store)
    young = [file for file in own if _is_young(file, young_ms)]
    # Keep whole folders with a young file: some files in a folder that is in use may be old.
    runs = {run_of(file.name) for file in young} - {None}
    indexes = {index_of(file.name) for file in young} - {""}
    announced = read_announced(store, own)
    need = needed(store, kept)
    in_use = {
        name
        for made in read_announced(store, (file for file in own if run_of(file.name) in runs))
        for name in (*made.files, made.index)
    }
    retained = {file.name for file in young} | in_use
    unneeded = [
        file
        for file in own
        if not (need.has(file.name) or file.name in retained or run_of(file.name) in runs)
        and index_of(file.name) not in indexes | in_use
    ]
    # This reads every commit, to know which files melmill made: skip it if there are no files.
    records = read_records(store, history, announced, own) if unneeded else None
    sizes = {f.name: f.size_bytes for f in unneeded if records and records.know(f.name)}
    return {name: sizes[name] for name in in_order_of_removal(sizes)}


def _is_young(file: StoreFile, young_ms: float) -> bool:
    # A file without a modification time may belong to a running run.
    return file.modified_ms is None or file.modified_ms > young_ms


def remove_all(
    store: Store, names: Iterable[str], report: Callable[[int], None] = lambda number: None
) -> None:
    """Remove files; a file that another process has already removed is not an error."""
    names = list(names)
    for number, name in enumerate(names, 1):
        report(number)
        store.remove(name)
        if store.size(name) is not None:
            raise DatasetError(f"{store.root}: {name} cannot be removed; check the permissions")
    remove_empty_folders(store, names)
