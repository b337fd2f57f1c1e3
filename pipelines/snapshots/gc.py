"""Removes what no kept snapshot needs: old shards and their twins, indexes, staging, orphans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.snapshot.delta import Past, read_history, require_snapshot
from melmill.transforms.snapshot.garbage import (
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
    """What was removed.

    Attributes
    ----------
    kept
        Versions that are kept.
    expired
        Versions that can no longer be read.
    files
        Names of the files.
    size_bytes
        Of all of them.
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
    """Remove what no kept snapshot needs.

    Parameters
    ----------
    store
        The dataset.
    retention
        Which snapshots are kept, and for how long what may belong to a running one.
    dry_run
        Whether nothing is removed.
    now_ms
        Milliseconds since 1970, for tests.
    report
        Called with the number of files removed so far.

    Raises
    ------
    ConflictError
        Another run began or committed just now.
    DatasetError
        There is no dataset, or a file cannot be removed.
    """
    opened = OpenSnapshot.current(store)
    current = opened.snapshot
    attempts = _attempts(store)
    every = read_history(store)
    history = [past for past in every if past.kept]
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    kept = choose(history, retention, now_ms)
    versions = {past.snapshot.version for past in kept}
    expired = [p.snapshot.version for p in history if p.snapshot.version not in versions]
    young_ms = now_ms - retention.grace_hours * _HOUR_MS
    garbage = _garbage(store, every, kept, young_ms)
    if require_snapshot(store).version != current.version:
        raise ConflictError(f"{store.root}: another run committed just now; run gc again")
    # One that goes on where it stopped long ago may take its old shards for finished.
    if _attempts(store) - attempts:
        raise ConflictError(f"{store.root}: a run began just now; run gc again")
    if not dry_run:
        opened.mend_side_files()
        remove_all(store, garbage, report)
    size_bytes = sum(garbage.values())
    return Collected(sorted(versions), sorted(expired), list(garbage), size_bytes)


def _attempts(store: Store) -> set[str]:
    """Return the files by which runs say that they began; what else a run writes is young."""
    return {name for name in store.names("staging") if "/attempts/" in name}


def choose(history: Sequence[Past], retention: RetentionConfig, now_ms: int) -> list[Past]:
    """Choose the snapshots that are kept: the latest, and those that were current lately.

    Parameters
    ----------
    history
        The latest first.
    """
    lately = max(retention.keep_days * _DAY_MS, retention.grace_hours * _HOUR_MS)
    kept = []
    ended_ms: float = float("inf")
    for number, past in enumerate(history):
        # A snapshot is current until the next one is committed.
        if number < retention.keep_snapshots or now_ms - ended_ms < lately:
            kept.append(past)
        ended_ms = past.committed_ms
    return kept


def _garbage(
    store: Store, history: Sequence[Past], kept: Sequence[Past], young_ms: float
) -> dict[str, int]:
    """Give the bytes of each file that is to go, in the order in which they go."""
    own = list_own(store)
    young = [file for file in own if _is_young(file, young_ms)]
    # Of a folder that is in use, or is being written anew, some files may be old.
    runs = {run_of(file.name) for file in young} - {None}
    indexes = {index_of(file.name) for file in young} - {""}
    announced = read_announced(store, own)
    need = needed(store, kept)
    in_use = {
        name
        for made in read_announced(store, (file for file in own if run_of(file.name) in runs))
        for name in (*made.files, made.index)
    }
    stays = {file.name for file in young} | in_use
    unneeded = [
        file
        for file in own
        if not (need.has(file.name) or file.name in stays or run_of(file.name) in runs)
        and index_of(file.name) not in indexes | in_use
    ]
    # Every commit is read to know whose files they are: not where there are none.
    records = read_records(store, history, announced, own) if unneeded else None
    sizes = {f.name: f.size_bytes for f in unneeded if records and records.know(f.name)}
    return {name: sizes[name] for name in in_order_of_removal(sizes)}


def _is_young(file: StoreFile, young_ms: float) -> bool:
    # Of a file without a time nobody knows who may need it.
    return file.modified_ms is None or file.modified_ms > young_ms


def remove_all(
    store: Store, names: Iterable[str], report: Callable[[int], None] = lambda number: None
) -> None:
    """Remove files; those that somebody else removes meanwhile are no matter."""
    names = list(names)
    for number, name in enumerate(names, 1):
        report(number)
        store.remove(name)
        if store.size(name) is not None:
            raise DatasetError(f"{store.root}: {name} cannot be removed; is it permitted?")
    remove_empty_folders(store, names)
