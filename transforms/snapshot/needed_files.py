"""Finds the files of a dataset that are needed, and the files that melmill may remove.

melmill may remove a file only under three conditions: melmill gives names of this form; a record
(the Delta log, an index that a commit names, an announcement of a run) shows that melmill made the
file; and no kept snapshot needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from melmill.transforms.index.tables import read_index, shard_names
from melmill.transforms.shards.receipts import Made, read_made
from melmill.transforms.snapshot.delta import Past, index_names, logged_files, side_table_names
from melmill.transforms.store.folders import Store, StoreFile
from melmill.transforms.store.own_files import index_of, is_own, run_of, shard_of, side_table_of


@dataclass(frozen=True, slots=True)
class Needed:
    """The files that kept snapshots need.

    Attributes
    ----------
    indexes, shards
        Names of indexes and shards.
    taken_down
        File that lists the recordings which were taken down; ``""`` for none.
    side_tables
        Names of side tables.
    """

    indexes: frozenset[str]
    shards: frozenset[str]
    taken_down: str
    side_tables: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Return whether a file is needed."""
        if shard := shard_of(name):
            return shard[1] in self.shards
        if table := side_table_of(name):
            return table in self.side_tables
        return index_of(name) in self.indexes or name == self.taken_down


def needed(store: Store, kept: Collection[Past]) -> Needed:
    """Return the files that snapshots need; the first snapshot must be the current snapshot."""
    indexes = frozenset(past.snapshot.index for past in kept)
    shards = frozenset(name for index in sorted(indexes) for name in shard_names(store, index))
    current = next((past.snapshot.taken_down for past in kept), "")
    tables = frozenset(table.name for past in kept for table in past.snapshot.side_tables)
    return Needed(indexes, shards, current, tables)


def list_own(store: Store) -> list[StoreFile]:
    """Return the files with names that only melmill gives, except the log and the side files."""
    folders = sorted(name for name in store.top_names() if name.startswith("split="))
    folders += ["columns", "index", "staging", "taken_down", "tfrecord"]
    return [file for folder in folders for file in store.files(folder) if is_own(file.name)]


def read_announced(store: Store, files: Iterable[StoreFile]) -> list[Made]:
    """Return the announcements of all runs whose working files still exist."""
    runs = {run_of(file.name) for file in files} - {None, ""}
    announced = (read_made(store, f"staging/{run}") for run in sorted(map(str, runs)))
    return list(chain.from_iterable(announced))


@dataclass(frozen=True, slots=True)
class Records:
    """The files that melmill made, by its records.

    Attributes
    ----------
    shards
        ``(split, name)`` of each shard.
    indexes, side_tables
        Names of indexes and of side tables.
    lists
        Names of lists of recordings that were taken down, and of other announced files.
    """

    shards: frozenset[tuple[str, str]]
    indexes: frozenset[str]
    lists: frozenset[str]
    side_tables: frozenset[str] = frozenset()

    def know(self, name: str) -> bool:
        """Return whether the records contain a file; a run's working files always count."""
        if shard := shard_of(name):
            return shard in self.shards
        is_named = index_of(name) in self.indexes or side_table_of(name) in self.side_tables
        return is_named or name in self.lists or run_of(name) is not None


def read_records(
    store: Store,
    history: Collection[Past],
    announced: Collection[Made],
    own: Iterable[StoreFile],
) -> Records:
    """Return the records of the Delta log, of announcements, and of the indexes that both name.

    The indexes are read because the log lacks the shards that a takedown wrote for earlier
    versions.

    Parameters
    ----------
    store
        Store of the dataset.
    history
        All snapshots that were ever committed.
    announced
        Announcements of runs.
    own
        All files of the dataset with names that only melmill gives.
    """
    names = [name for announcement in announced for name in announcement.files]
    shards = {shard_of(name) for name in (*logged_files(store), *names)}
    indexes = index_names(history) | {entry.index for entry in announced if entry.index}
    present = indexes & {index_of(file.name) for file in own}
    shards |= {shard for index in sorted(present) for shard in _indexed(store, index)}
    lists = {past.snapshot.taken_down for past in history} | set(names)
    known = frozenset(shard for shard in shards if shard is not None)
    tables = frozenset(side_table_names(history))
    return Records(known, frozenset(indexes), frozenset(lists), tables)


def _indexed(store: Store, index: str) -> Iterator[tuple[str, str]]:
    """Yield the split and name of each shard in an index."""
    for row in read_index(store, index, "shards", ["split", "name"]):
        yield row["split"], row["name"]


def in_order_of_removal(names: Iterable[str]) -> Iterator[str]:
    """Return files in an order of removal that is safe if the process is killed in between.

    The first part of an index goes first: a snapshot without it is no longer kept. The rest of
    the index and the announcements go last, because they show that melmill made the other files.
    """

    def place(name: str) -> tuple[int, str]:
        if index_of(name):
            return (0 if name.endswith("/recordings-00000.parquet") else 2), name
        if run_of(name) is None:
            return 1, name
        return (4 if "/made/" in name else 3), name

    return iter(sorted(names, key=place))
