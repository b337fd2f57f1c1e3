"""Removes what no kept snapshot needs: old shards and their twins, indexes, staging, orphans."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.config import RetentionConfig
from pipelines.maintenance import mend_side_files, open_snapshot
from transforms.errors import DatasetError
from transforms.storage.index import shard_names
from transforms.storage.snapshot import Past, read_history, require_snapshot
from transforms.storage.store import Store, StoreFile
from transforms.storage.summaries import ShardSummary

_SHARD = re.compile(r"(?:split=[^/]+|tfrecord/[^/]+)/part-([0-9a-f]+)\.(?:parquet|tfrecord)")
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
    DatasetError
        There is no dataset, or another run committed just now.
    """
    current = open_snapshot(store)
    history = [past for past in read_history(store) if past.kept]
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    kept = choose(history, retention, now_ms)
    versions = {past.snapshot.version for past in kept}
    expired = [p.snapshot.version for p in history if p.snapshot.version not in versions]
    young_ms = now_ms - retention.grace_hours * _HOUR_MS
    garbage = list(_garbage(store, kept, young_ms))
    # Indexes first: a snapshot whose index is gone is known to be no longer kept.
    garbage.sort(key=lambda file: (not file.name.startswith("index/"), file.name))
    if require_snapshot(store).version != current.version:
        raise DatasetError(f"{store.root}: another run committed just now; run gc again")
    if not dry_run:
        mend_side_files(store, current)
        remove_all(store, (file.name for file in garbage), report)
    size_bytes = sum(file.size_bytes for file in garbage)
    return Collected(sorted(versions), sorted(expired), [f.name for f in garbage], size_bytes)


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


def _garbage(store: Store, kept: Iterable[Past], young_ms: float) -> Iterator[StoreFile]:
    indexes = {past.snapshot.index for past in kept}
    staging = list(store.files("staging"))
    in_use = {_folder(file) for file in staging if _is_young(file, young_ms)}
    needed = {name for index in sorted(indexes) for name in shard_names(store, index)}
    needed |= {name for file in staging if _folder(file) in in_use for name in _made(store, file)}
    listed = list(store.files("index"))
    # Of a folder that is being written anew some files may be old.
    indexes |= {file.name.split("/")[1] for file in listed if _is_young(file, young_ms)}
    yield from (file for file in listed if file.name.split("/")[1] not in indexes)
    for folder in sorted(name for name in store.top_names() if name.startswith("split=")):
        yield from _unneeded(store.files(folder), needed, young_ms)
    yield from _unneeded(store.files("tfrecord"), needed, young_ms)
    yield from (file for file in staging if _folder(file) not in in_use)


def _folder(file: StoreFile) -> str:
    return "/".join(file.name.split("/")[:2])


def _is_young(file: StoreFile, young_ms: float) -> bool:
    # Of a file without a time nobody knows who may need it.
    return file.modified_ms is None or file.modified_ms > young_ms


def _made(store: Store, receipt: StoreFile) -> Iterator[str]:
    """Name the shard that a run which goes on has finished."""
    if "/shards/" in receipt.name:
        try:
            yield ShardSummary.from_json(store.read(receipt.name)).name
        except FileNotFoundError:
            return  # the run has committed meanwhile, which is noticed below


def _unneeded(files: Iterable[StoreFile], needed: set[str], young_ms: float) -> Iterator[StoreFile]:
    for file in files:
        found = _SHARD.fullmatch(file.name)
        if found and found[1] not in needed and not _is_young(file, young_ms):
            yield file


def remove_all(
    store: Store, names: Iterable[str], report: Callable[[int], None] = lambda number: None
) -> None:
    """Remove files; those that somebody else removes meanwhile are no matter."""
    for number, name in enumerate(names, 1):
        report(number)
        # An index, or a run's staging folder, goes as a whole.
        whole = name.startswith(("index/", "staging/"))
        store.remove("/".join(name.split("/")[:2]) if whole else name)
        if store.size(name) is not None:
            raise DatasetError(f"{store.root}: {name} cannot be removed; is it permitted?")
