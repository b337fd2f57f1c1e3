"""Find the recordings that a user names, with all other entries of the same recordings.

A recording is a whole object: all its segments, and all its names in an index or in a file that
an interrupted run left. Two entries are the same recording if their names below the catalogue's
root, their URIs or, if known, their contents are equal.
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
from melmill.transforms.catalogue.taken_down_list import TakenDown
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.naming import recording_id, resolve_uri, split_chain
from melmill.transforms.index.tables import read_batches, read_index
from melmill.transforms.side_tables.side_table import SideTable, read_file, read_parts
from melmill.transforms.snapshot.delta import Past
from melmill.transforms.snapshot.needed_files import list_own, needed
from melmill.transforms.store.filesystems import absolute_path
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import index_of, shard_of, side_table_of

_COLUMNS = ["recording_id", "uri", "content_hash", "rows", "shards"]
#: The number of known names that an unknown name is compared with.
_COMPARED = 20_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry for a recording, read from an index or from a file that has no index."""

    recording_id: str
    uri: str
    content: str = ""

    @property
    def names(self) -> set[str]:
        """Return all names that identify the recording."""
        return {self.recording_id, self.content, *names_of_uri(self.uri)} - {""}


@dataclass(slots=True)
class Held:
    """The entries of an index that match the wanted recordings.

    Attributes
    ----------
    entries
        The matching entries.
    rows
        The number of their rows.
    shards
        The IDs of the matching recordings in each shard, by the shard's name.
    """

    entries: set[Entry] = field(default_factory=set)
    rows: int = 0
    shards: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass(slots=True)
class Found:
    """All entries of a dataset that match the wanted recordings.

    Attributes
    ----------
    names
        The names, URIs and contents that identify the recordings.
    entries
        The matching entries.
    held
        The matching entries of each index of a kept snapshot, by the index's name.
    side_tables
        The names of the side tables of kept snapshots that hold values of the recordings.
    """

    names: set[str]
    entries: set[Entry]
    held: dict[str, Held]
    side_tables: set[str] = field(default_factory=set)


def find_recordings(
    store: Store, kept: Sequence[Past], asked: Sequence[str], before: Collection[TakenDown]
) -> Found:
    """Return the recordings that a user names, from kept snapshots and from files of runs.

    Parameters
    ----------
    store, kept
        The dataset, and its kept snapshots.
    asked
        URIs, names below the catalogue's root, paths, or values of ``recording_id``.
    before
        The recordings that were taken down earlier, which the user may name again.

    Raises
    ------
    DatasetError
        The dataset has no such recording; the message suggests similar names.
    """
    indexes = {past.snapshot.index for past in kept}
    loose = {Entry(taken.recording_id, taken.uri, taken.content) for taken in before}
    loose |= set(_uncommitted(store, kept))
    roots = sorted({root for past in kept for root in _roots(past.snapshot.catalogue)})
    candidates = {name: list(_meanings(name, roots)) for name in asked}
    possible: set[str] = set().union(
        *(meaning for meanings in candidates.values() for meaning in meanings)
    )
    tables = {table.name: table for past in kept for table in past.snapshot.side_tables}
    for table in tables.values():
        loose |= set(entries_in(store, table, possible))
    known = _known(store, indexes, loose, possible)
    names: set[str] = set()
    for name, meanings in candidates.items():
        matched = next((known & meaning for meaning in meanings if known & meaning), None)
        if matched is None:
            raise DatasetError(_unknown(store, kept, name))
        names |= matched
    return _same_recordings(store, indexes, loose, names, tables.values())


def entries_in(store: Store, table: SideTable, names: Collection[str]) -> Iterator[Entry]:
    """Yield the entries of a side table that have one of the names.

    A recording may have values although no kept snapshot has it any more.
    """
    for rows in read_parts(store, table, ["recording_id", "uri"]):
        yield from entries_of_values(rows, names)


def entries_of_values(rows: pa.Table, names: Collection[str] | None = None) -> Iterator[Entry]:
    """Yield the entries of a part of a side table: all, or those that have one of the names."""
    # A recording may have many rows.
    distinct = rows.group_by(["recording_id", "uri"]).aggregate([])
    if names is not None:
        distinct = distinct.filter(_may_match(distinct, names))
    for row in distinct.to_pylist():
        entry = Entry(row["recording_id"], row["uri"])
        if names is None or not entry.names.isdisjoint(names):
            yield entry


def _same_recordings(
    store: Store,
    indexes: Iterable[str],
    loose: Iterable[Entry],
    names: set[str],
    tables: Iterable[SideTable],
) -> Found:
    """Return all entries of the named recordings; add names until no new name is found."""
    while True:
        matches = {index: _find(store, index, names) for index in indexes}
        values = {table.name: {*entries_in(store, table, names)} for table in tables}
        entries = {entry for entry in loose if not names.isdisjoint(entry.names)}
        entries |= {entry for match in matches.values() for entry in match.entries}
        entries = entries.union(*values.values())
        all_names = names.union(*(entry.names for entry in entries))
        if all_names == names:
            tables_with_entries = {name for name, own_entries in values.items() if own_entries}
            return Found(names, entries, matches, tables_with_entries)
        names = all_names


def _find(store: Store, index: str, names: Collection[str]) -> Held:
    match = Held()
    for row in _rows_that_may_match(store, index, names, _COLUMNS):
        entry = _entry(row)
        if not entry.names.isdisjoint(names):
            match.entries.add(entry)
            match.rows += row["rows"]
            for shard in row["shards"]:
                match.shards[shard].add(row["recording_id"])
    return match


def _rows_that_may_match(
    store: Store, index: str, names: Collection[str], columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an index that may match; a fast filter, since an index can be large."""
    for batch in read_batches(store, index, "recordings", columns):
        contents = pc.utf8_slice_codeunits(batch["content_hash"], 0, 64)
        is_known = pc.is_in(contents, value_set=pa.array(sorted(names), pa.string()))
        yield from batch.filter(pc.or_(_may_match(batch, names), is_known)).to_pylist()


def _may_match(rows: Any, names: Collection[str]) -> Any:
    """Return a mask of the rows whose ``recording_id`` or ``uri`` may have one of the names."""
    known = pa.array(sorted(names), pa.string())
    lasts = pa.array(sorted({name.rpartition("/")[2] for name in names}), pa.string())
    uri = rows["uri"]
    last = pc.replace_substring_regex(pc.utf8_rtrim(uri, "/"), "(?s)^.*/", "")
    masks = (
        pc.is_in(rows["recording_id"], value_set=known),
        pc.is_in(last, value_set=lasts),
        # A link's target has another name, and a chained URL ends in another name.
        pc.match_substring_regex(uri, "^(/|file:|local:)|::", ignore_case=True),
    )
    return reduce(pc.or_, masks)


def _entry(row: Mapping[str, Any]) -> Entry:
    content = content_of(row.get("content_hash") or "")
    return Entry(row["recording_id"], row["uri"], content)


def _known(
    store: Store, indexes: Iterable[str], loose: Iterable[Entry], names: set[str]
) -> set[str]:
    """Return the names that the dataset knows."""
    known = {name for entry in loose for name in entry.names & names}
    for index in sorted(indexes):
        for row in _rows_that_may_match(store, index, names, _COLUMNS[:3]):
            known |= _entry(row).names & names
    return known


def _uncommitted(store: Store, kept: Sequence[Past]) -> Iterator[Entry]:
    """Yield the recordings in indexes and shards that interrupted and overtaken runs left."""
    need = needed(store, kept)
    leftovers = [file.name for file in list_own(store) if not need.has(file.name)]
    indexes = sorted({index_of(name) for name in leftovers} - {""})
    for name in (*telling(leftovers), *filter(side_table_of, leftovers), *indexes):
        try:
            if side_table_of(name):
                yield from entries_of_values(read_file(store, name, ["recording_id", "uri"]))
            elif shard_of(name):
                yield from (Entry(*recording) for recording in recordings_in(store, name))
            else:
                yield from map(_entry, read_index(store, name, "recordings", _COLUMNS[:3]))
        except (DatasetError, OSError, ValueError):
            continue  # a file that cannot be read names no recording, and is erased anyway


def _roots(catalogue: str) -> Iterator[str]:
    """Yield the folders that a catalogue's relative URIs may be relative to."""
    yield catalogue
    folder, pattern = split_glob(catalogue)
    if pattern:
        yield folder
    head, chained = split_chain(catalogue)
    yield (head.rpartition("/")[0] or "/") + chained


def _meanings(name: str, roots: Iterable[str]) -> Iterator[set[str]]:
    """Yield the possible meanings of a name, the likeliest first; the first known one counts."""
    yield {name, *names_of_uri(name)}
    below = {recording_id(name)}
    for root in roots:
        try:
            below |= names_of_uri(resolve_uri(root, name)[0])
        except CatalogueError:
            continue  # the name leads out of this root with ".."
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
        close = [lasts[similar] for similar in difflib.get_close_matches(last, lasts, 3)]
    hint = f" (did you mean {', '.join(close)}?)" if close else ""
    return (
        f"{store.root}: no kept snapshot has {name}{hint}; name recordings by their URI, by their "
        "name below the catalogue's root, or by recording_id as the index has it. Nothing was "
        "erased"
    )
