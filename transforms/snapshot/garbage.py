"""Which files of a dataset are needed, and which of the others are melmill's to remove.

A file may be removed only if its name is one that melmill gives, a record says that melmill
made it (the Delta log, an index that a commit names, an announcement of a run), and no kept
snapshot needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from melmill.transforms.index.tables import read_index, shard_names
from melmill.transforms.shards.receipts import Made, read_made
from melmill.transforms.snapshot.delta import Past, index_names, logged_files
from melmill.transforms.store.folders import Store, StoreFile
from melmill.transforms.store.own_files import index_of, is_own, run_of, shard_of


@dataclass(frozen=True, slots=True)
class Needed:
    """What kept snapshots need.

    Attributes
    ----------
    indexes, shards
        Their names.
    taken_down
        File that lists what was taken down; ``""`` for none.
    """

    indexes: frozenset[str]
    shards: frozenset[str]
    taken_down: str

    def has(self, name: str) -> bool:
        """Tell whether a file is among what is needed."""
        if shard := shard_of(name):
            return shard[1] in self.shards
        return index_of(name) in self.indexes or name == self.taken_down


def needed(store: Store, kept: Collection[Past]) -> Needed:
    """Find what snapshots need, of which the first is the current one."""
    indexes = frozenset(past.snapshot.index for past in kept)
    shards = frozenset(name for index in sorted(indexes) for name in shard_names(store, index))
    current = next((past.snapshot.taken_down for past in kept), "")
    return Needed(indexes, shards, current)


def list_own(store: Store) -> list[StoreFile]:
    """List the files whose names only melmill gives, but for the log and the side files."""
    folders = sorted(name for name in store.top_names() if name.startswith("split="))
    folders += ["index", "staging", "taken_down", "tfrecord"]
    return [file for folder in folders for file in store.files(folder) if is_own(file.name)]


def read_announced(store: Store, files: Iterable[StoreFile]) -> list[Made]:
    """Read what all runs announced whose working files are still there."""
    runs = {run_of(file.name) for file in files} - {None, ""}
    return [made for run in sorted(map(str, runs)) for made in read_made(store, f"staging/{run}")]


@dataclass(frozen=True, slots=True)
class Records:
    """What melmill's records say that melmill made: shards by split and name, indexes, lists."""

    shards: frozenset[tuple[str, str]]
    indexes: frozenset[str]
    lists: frozenset[str]

    def know(self, name: str) -> bool:
        """Tell whether a file is in the records; a run's working files are their own record."""
        if shard := shard_of(name):
            return shard in self.shards
        return index_of(name) in self.indexes or name in self.lists or run_of(name) is not None


def read_records(
    store: Store,
    history: Collection[Past],
    announced: Collection[Made],
    own: Iterable[StoreFile],
) -> Records:
    """Read the Delta log of all versions, what runs announced, and the indexes of both.

    The log lacks the shards that a takedown wrote for earlier versions.

    Parameters
    ----------
    own
        All files of the dataset whose names only melmill gives.
    """
    names = [name for made in announced for name in made.files]
    shards = {shard_of(name) for name in (*logged_files(store), *names)}
    indexes = index_names(history) | {made.index for made in announced if made.index}
    there = indexes & {index_of(file.name) for file in own}
    shards |= {shard for index in sorted(there) for shard in _indexed(store, index)}
    lists = {past.snapshot.taken_down for past in history} | set(names)
    known = frozenset(shard for shard in shards if shard is not None)
    return Records(known, frozenset(indexes), frozenset(lists))


def _indexed(store: Store, index: str) -> Iterator[tuple[str, str]]:
    for row in read_index(store, index, "shards", ["split", "name"]):
        yield row["split"], row["name"]


def in_order_of_removal(names: Iterable[str]) -> Iterator[str]:
    """Order files so that whoever is killed in between leaves what the next run can tell.

    An index's first part goes first: without it a snapshot is known to be no longer kept. The
    rest of the index and what runs announced go last, since they say whose the other files are.
    """

    def place(name: str) -> tuple[int, str]:
        if index_of(name):
            return (0 if name.endswith("/recordings-00000.parquet") else 2), name
        if run_of(name) is None:
            return 1, name
        return (4 if "/made/" in name else 3), name

    return iter(sorted(names, key=place))
