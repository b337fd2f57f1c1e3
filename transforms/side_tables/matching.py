"""Matches a user's values with the recordings of an index, in bounded memory.

The rows of the table are spooled to the local disk, divided into buckets by a digest of their
recording. A bucket is as large as :data:`BUCKET_BYTES` of the table, or as a part of the index, and
one bucket at a time is in memory. Each bucket becomes a part of the side table.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import number_of
from melmill.transforms.side_tables.keys import keys_of
from melmill.transforms.side_tables.known_recordings import (
    KnownRecordings,
    limits_of_rows,
    rows_of_bucket,
)
from melmill.transforms.side_tables.naming_by_uri import spool_by_uri
from melmill.transforms.side_tables.side_table import SideTable, stored_schema
from melmill.transforms.side_tables.spools import Spool
from melmill.transforms.side_tables.user_tables import NUMBER, PLACE, UserTable, read_values

#: Size of a bucket: part of the table that is in memory.
BUCKET_BYTES = 64 << 20

#: Number of faults that a message lists.
_SHOWN = 5


@dataclass(slots=True)
class Faults:
    """Faults of one kind: how many there are, and the first of them."""

    number: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, rows: pa.Table, describe: Callable[[Mapping[str, object]], str]) -> None:
        """Add the rows of a bucket that have the fault."""
        self.number += rows.num_rows
        few = rows.sort_by(NUMBER).slice(0, _SHOWN).to_pylist() if rows.num_rows else []
        found = [*self.first, *((row[NUMBER], describe(row)) for row in few)]
        self.first = heapq.nsmallest(_SHOWN, found)

    def text(self) -> str:
        """Return the first faults, and the number of the others."""
        more = self.number - len(self.first)
        return ", ".join(text for _, text in self.first) + (f", and {more:,} more" if more else "")


@dataclass(frozen=True, slots=True)
class Target:
    """What a user's table is matched with.

    Attributes
    ----------
    known
        Recordings of the snapshot.
    key
        Columns of the side table's key.
    roots
        Folders that relative URIs may start from.
    previous
        Side table whose other rows are kept; ``None`` for none.
    """

    known: KnownRecordings
    key: tuple[str, ...]
    roots: tuple[str, ...] = ()
    previous: SideTable | None = None


@dataclass(slots=True)
class Matched:
    """The result of matching: what does not match, counted while the parts are read.

    Attributes
    ----------
    known
        Number of rows that belong to something in the snapshot.
    unknown, doubled
        Rows that belong to nothing in the snapshot, and rows whose key has another row.
    """

    known: int = 0
    unknown: Faults = field(default_factory=Faults)
    doubled: Faults = field(default_factory=Faults)

    def check(self, uri: str, ignore_unknown: bool) -> None:
        """Raise ``CatalogueError`` if a row is doubled, or unknown unless these are ignored."""
        problems = []
        if self.unknown.number and not (ignore_unknown and self.known):
            remedy = "correct the rows, or leave them out with --ignore-unknown"
            problems.append(
                f"{_rows(self.unknown.number, 'belong')} to nothing in the dataset: "
                f"{self.unknown.text()}; " + (remedy if self.known else "no row belongs to it")
            )
        if self.doubled.number:
            problems.append(
                f"{_rows(self.doubled.number, 'repeat')} the key of an earlier row: "
                f"{self.doubled.text()}; leave one row for each"
            )
        if problems:
            raise CatalogueError(f"{uri}: " + "\n  ".join([*problems, "nothing was added"]))


def _rows(number: int, verb: str) -> str:
    """Return a number of rows with a verb.

    >>> _rows(1, "repeat"), _rows(2, "repeat")
    ('1 row repeats', '2 rows repeat')
    """
    return f"{number_of(number, 'row')} {verb}" + "s" * (number == 1)


def count_buckets(size_bytes: int, parts: int) -> int:
    """Return the number of buckets for a table of a size: a multiple of the index's parts.

    >>> count_buckets(0, 3), count_buckets(10 << 30, 3)
    (3, 162)
    """
    return parts * max(1, -(-size_bytes // (BUCKET_BYTES * parts)))


def match_values(
    table: UserTable, target: Target, matched: Matched, buckets: int, folder: Path
) -> Iterator[pa.Table]:
    """Yield the parts of a side table with a user's values.

    Parameters
    ----------
    table, target
        Table of values, and what it is matched with.
    matched
        Faults; they are complete after the last part.
    buckets
        Number of parts.
    folder
        Empty local folder for the spools.

    Raises
    ------
    CatalogueError
        If a row cannot be read; see :func:`read_values`.
    """
    rows = Spool(folder / "rows", _by_recording(table), "recording_id", buckets)
    if table.key[0] == "uri":
        for part in spool_by_uri(table, target.known, target.roots, folder, buckets):
            matched.unknown.add(part.unknown, lambda row: f"{row[PLACE]} ({row['uri']})")
            rows.add(part.known)
    else:
        for block in read_values(table):
            rows.add(block)
    for number in range(buckets):
        yield _part(rows.read(number), table, target, matched, number, buckets)


def _by_recording(table: UserTable) -> pa.Schema:
    """Return the columns of rows that name their recording by its id."""
    place = table.schema.get_field_index(table.key[0])
    return table.schema.set(place, pa.field("recording_id", pa.string()))


def _part(
    rows: pa.Table, table: UserTable, target: Target, matched: Matched, number: int, buckets: int
) -> pa.Table:
    recordings = target.known.bucket(number, buckets)
    known, unknown = _find(rows, recordings, target.key)
    matched.known += known.num_rows
    matched.unknown.add(unknown, lambda row: f"{row[PLACE]} ({_key_text(row, target.key)})")
    keys = keys_of([known[name] for name in target.key])
    order = np.lexsort((known[NUMBER].to_numpy(), keys))
    known, keys = known.take(order), keys[order]
    repeats = np.concatenate([[False], keys[1:] == keys[:-1]])[: len(keys)]
    doubled = known.filter(pa.array(repeats))
    matched.doubled.add(doubled, lambda row: f"{row[PLACE]} ({_key_text(row, target.key)})")
    schema = stored_schema(target.key, table.columns)
    part = known.select(schema.names).cast(schema)
    if target.previous is None:
        return part
    return _with_previous(part, target, target.previous, number, buckets)


def _key_text(row: Mapping[str, object], key: Sequence[str]) -> str:
    numbers = "".join(f", {name} {row[name]}" for name in key[1:])
    return f"{row['recording_id']}{numbers}"


def _find(rows: pa.Table, recordings: pa.Table, key: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """Return the rows that belong to a recording, with its URI, and the other rows."""
    ids = recordings["recording_id"].combine_chunks()
    places = pc.index_in(rows["recording_id"], value_set=ids)
    found = places.is_valid().to_numpy()
    if len(key) > 1 and len(ids):
        limits = limits_of_rows(recordings, "channel" in key)
        own = places.fill_null(0).to_numpy()
        for name, limit in zip(key[1:], limits, strict=False):
            numbers = rows[name].to_numpy()
            found = found & (numbers >= 0) & (numbers < limit[own])
    mask = pa.array(found, pa.bool_())
    uris = recordings["uri"].take(places.filter(mask))
    return rows.filter(mask).append_column("uri", uris), rows.filter(pc.invert(mask))


def _with_previous(
    part: pa.Table, target: Target, previous: SideTable, number: int, buckets: int
) -> pa.Table:
    """Return a part together with the rows of the earlier side table that it does not replace."""
    names, own = part.schema.names, len(target.key) + 1
    stored = [*names[:own], *(name for name in names[own:] if name in previous.columns)]
    own_keys, parts = keys_of([part[name] for name in target.key]), [part]
    for rows in rows_of_bucket(target.known.store, previous, stored, number, buckets):
        is_other = ~np.isin(keys_of([rows[name] for name in target.key]), own_keys)
        parts.append(rows.filter(pa.array(is_other)))
    joined = pa.concat_tables(parts, promote_options="default").select(names)
    return joined.take(np.argsort(keys_of([joined[name] for name in target.key]), kind="stable"))
