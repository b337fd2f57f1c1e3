"""Recordings of a dataset by what a user calls them, and all that is the same recording.

A recording is one object, whole: all its segments, and every name under which an index, or a
file that an interrupted run left, has it. Two entries are the same recording where their names
below the catalogue's root, their URIs or, where those are known, their contents are equal.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melmill.pipelines.snapshots.leftovers import recordings_in, telling
from melmill.transforms.catalogue.left_out import canonical_uri, content_of, names_of_uri
from melmill.transforms.catalogue.parts import split_glob
from melmill.transforms.catalogue.taken_down import TakenDown
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.naming import recording_id, resolve_uri, split_chain
from melmill.transforms.index.tables import read_batches, read_index
from melmill.transforms.snapshot.delta import Past
from melmill.transforms.snapshot.garbage import list_own, needed
from melmill.transforms.store.filesystems import absolute_path
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import index_of, shard_of

_COLUMNS = ["recording_id", "uri", "content_hash", "rows", "shards"]
#: Names that are compared with one that nobody knows.
_COMPARED = 20_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording as an index, or a file without one, has it."""

    recording_id: str
    uri: str
    content: str = ""

    @property
    def names(self) -> set[str]:
        """All by which the recording is told."""
        return {self.recording_id, self.content, *names_of_uri(self.uri)} - {""}


@dataclass(slots=True)
class Held:
    """What one index has of the recordings that are looked for.

    Attributes
    ----------
    entries
        The recordings.
    rows
        Number of their rows.
    shards
        Recordings of each shard that holds some, by the shard's name.
    """

    entries: set[Entry] = field(default_factory=set)
    rows: int = 0
    shards: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass(slots=True)
class Found:
    """All that a dataset has of some recordings.

    Attributes
    ----------
    names
        Names, URIs and contents by which they are told.
    entries
        The recordings.
    held
        What each index of a kept snapshot has of them, by the index's name.
    """

    names: set[str]
    entries: set[Entry]
    held: dict[str, Held]


def find_recordings(
    store: Store, kept: Sequence[Past], asked: Sequence[str], before: Collection[TakenDown]
) -> Found:
    """Find the recordings that a user names, in kept snapshots and in what runs left.

    Parameters
    ----------
    store, kept
        The dataset, and its kept snapshots.
    asked
        URIs, names below the catalogue's root, paths, or ``recording_id``.
    before
        What was taken down already, which may be named again.

    Raises
    ------
    DatasetError
        The dataset knows no such recording; the message says what comes close.
    """
    indexes = {past.snapshot.index for past in kept}
    others = {Entry(one.recording_id, one.uri, one.content) for one in before}
    others |= set(_uncommitted(store, kept))
    roots = sorted({root for past in kept for root in _roots(past.snapshot.catalogue)})
    candidates = {name: list(_meanings(name, roots)) for name in asked}
    every: set[str] = set().union(*(meaning for one in candidates.values() for meaning in one))
    present = _known(store, indexes, others, every)
    names: set[str] = set()
    for name, meanings in candidates.items():
        meant = next((present & meaning for meaning in meanings if present & meaning), None)
        if meant is None:
            raise DatasetError(_unknown(store, kept, name))
        names |= meant
    return _same_recordings(store, indexes, others, names)


def _same_recordings(
    store: Store, indexes: Iterable[str], others: Iterable[Entry], names: set[str]
) -> Found:
    """Go from names to recordings and to their other names, until no other name turns up."""
    while True:
        held = {index: _find(store, index, names) for index in indexes}
        entries = {one for one in others if not names.isdisjoint(one.names)}
        entries |= {entry for one in held.values() for entry in one.entries}
        wider = names.union(*(entry.names for entry in entries))
        if wider == names:
            return Found(names, entries, held)
        names = wider


def _find(store: Store, index: str, names: Collection[str]) -> Held:
    found = Held()
    for row in _rows_that_may_match(store, index, names, _COLUMNS):
        entry = _entry(row)
        if not entry.names.isdisjoint(names):
            found.entries.add(entry)
            found.rows += row["rows"]
            for shard in row["shards"]:
                found.shards[shard].add(row["recording_id"])
    return found


def _rows_that_may_match(
    store: Store, index: str, names: Collection[str], columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Read the rows of an index that are worth a closer look: of millions, only those."""
    known = pa.array(sorted(names), pa.string())
    lasts = pa.array(sorted({name.rpartition("/")[2] for name in names}), pa.string())
    for batch in read_batches(store, index, "recordings", columns):
        uri = batch["uri"]
        last = pc.replace_substring_regex(pc.utf8_rtrim(uri, "/"), "(?s)^.*/", "")
        masks = (
            pc.is_in(batch["recording_id"], value_set=known),
            pc.is_in(pc.utf8_slice_codeunits(batch["content_hash"], 0, 64), value_set=known),
            pc.is_in(last, value_set=lasts),
            # Links lead to files of other names; a chain's last part is not the file's.
            pc.match_substring_regex(uri, "^(/|file:|local:)|::", ignore_case=True),
        )
        yield from batch.filter(reduce(pc.or_, masks)).to_pylist()


def _entry(row: Mapping[str, Any]) -> Entry:
    content = content_of(row.get("content_hash") or "")
    return Entry(row["recording_id"], row["uri"], content)


def _known(
    store: Store, indexes: Iterable[str], others: Iterable[Entry], names: set[str]
) -> set[str]:
    """Choose the names that the dataset knows."""
    known = {name for entry in others for name in entry.names & names}
    for index in sorted(indexes):
        for row in _rows_that_may_match(store, index, names, _COLUMNS[:3]):
            known |= _entry(row).names & names
    return known


def _uncommitted(store: Store, kept: Sequence[Past]) -> Iterator[Entry]:
    """Read what interrupted and overtaken runs left: their indexes, and shards by themselves."""
    need = needed(store, kept)
    left = [file.name for file in list_own(store) if not need.has(file.name)]
    for name in (*telling(left), *sorted({index_of(name) for name in left} - {""})):
        try:
            if shard_of(name):
                yield from (Entry(*one) for one in recordings_in(store, name))
            else:
                yield from map(_entry, read_index(store, name, "recordings", _COLUMNS[:3]))
        except (DatasetError, OSError, ValueError):
            continue  # what cannot be read names no recording, and is erased with the others


def _roots(catalogue: str) -> Iterator[str]:
    """Name the folders that a catalogue's relative URIs may start from."""
    yield catalogue
    folder, pattern = split_glob(catalogue)
    if pattern:
        yield folder
    head, chained = split_chain(catalogue)
    yield (head.rpartition("/")[0] or "/") + chained


def _meanings(name: str, roots: Iterable[str]) -> Iterator[set[str]]:
    """Say what a name may mean, the likeliest first; the first that is known is meant."""
    yield {name, *names_of_uri(name)}
    below = {recording_id(name)}
    for root in roots:
        try:
            below |= names_of_uri(resolve_uri(root, name)[0])
        except CatalogueError:
            continue  # it climbs out of this root, so it is not below it
    yield below
    if "://" not in name:
        yield names_of_uri(absolute_path(name))


def _unknown(store: Store, kept: Sequence[Past], name: str) -> str:
    current = kept[0].snapshot.index
    uris = sorted(row["uri"] for row in read_index(store, current, "recordings", ["uri"]))
    last = canonical_uri(name).rpartition("/")[2]
    close = [uri for uri in uris if uri.rpartition("/")[2] == last][:3]
    close = close or difflib.get_close_matches(name, islice(uris, _COMPARED), 3)
    if not close:
        lasts = {uri.rpartition("/")[2]: uri for uri in islice(uris, _COMPARED)}
        close = [lasts[one] for one in difflib.get_close_matches(last, lasts, 3)]
    hint = f" (did you mean {', '.join(close)}?)" if close else ""
    return (
        f"{store.root}: no kept snapshot has {name}{hint}; name recordings by their URI, by their "
        "name below the catalogue's root, or by recording_id as the index has it. Nothing was "
        "erased"
    )
