"""Rows that name recordings by URI: find the ids, in bounded memory.

The index and the table are both spooled by their URIs. A URI of the table is one of the dataset's
absolute URIs, or a path below a folder of the catalogue. It stands for all segments of its object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.catalogue.left_out import canonical_uri
from melmill.transforms.core.naming import recording_id as digest_of_name
from melmill.transforms.core.naming import resolve_uri
from melmill.transforms.side_tables.known_recordings import KnownRecordings
from melmill.transforms.side_tables.spools import Spool
from melmill.transforms.side_tables.user_tables import UserTable, read_values

_NAME = "_name"
_IDS = pa.schema({_NAME: pa.string(), "recording_id": pa.string()})


@dataclass(frozen=True, slots=True)
class NamedRows:
    """Rows with the ids of their recordings, and rows whose URI is unknown."""

    known: pa.Table
    unknown: pa.Table


def spool_by_uri(
    table: UserTable, known: KnownRecordings, roots: Sequence[str], folder: Path, buckets: int
) -> Iterator[NamedRows]:
    """Yield the rows of a table, bucket by bucket of their URIs.

    Parameters
    ----------
    table
        Table whose key begins with ``uri``.
    known
        Recordings of the snapshot.
    roots
        Folders that relative URIs may start from.
    folder, buckets
        Local folder for the spools, and their number of buckets.
    """
    ids = Spool(folder / "ids", _IDS, _NAME, buckets)
    for number in range(known.parts):
        ids.add(_named(known.part(number), roots))
    schema = table.schema.append(pa.field(_NAME, pa.string()))
    rows = Spool(folder / "uris", schema, _NAME, buckets)
    for block in read_values(table):
        names = [_plain(uri) for uri in block["uri"].to_pylist()]
        rows.add(block.append_column(_NAME, pa.array(names, pa.string())))
    for number in range(buckets):
        yield _join(rows.read(number), ids.read(number), table)


def _named(recordings: pa.Table, roots: Sequence[str]) -> pa.Table:
    """Return the names of each recording: its URI, and its paths below the roots.

    The id shows whether the catalogue's URIs start from another root than the first.
    """
    names, ids = [], []
    for uri, recording_id in zip(
        recordings["uri"].to_pylist(), recordings["recording_id"].to_pylist(), strict=True
    ):
        first, *others = (resolve_uri(root, uri)[1] for root in roots)
        below = {first, *(name for name in others if digest_of_name(name) == recording_id)}
        for name in {canonical_uri(uri), *below}:
            names.append(name)
            ids.append(recording_id)
    return pa.Table.from_arrays([pa.array(names, pa.string()), pa.array(ids)], schema=_IDS)


def _plain(uri: str) -> str:
    """Return the form of a user's URI that is compared."""
    return canonical_uri(uri).removeprefix("./")


def _join(rows: pa.Table, ids: pa.Table, table: UserTable) -> NamedRows:
    """Return a row for each recording that a row of the table names."""
    order = pc.sort_indices(ids[_NAME])
    names, recording_ids = ids[_NAME].take(order), ids["recording_id"].take(order)
    ordered = np.array(names.to_pylist(), object)
    wanted = np.array(rows[_NAME].to_pylist(), object)
    first = np.searchsorted(ordered, wanted, "left")
    counts = np.searchsorted(ordered, wanted, "right") - first
    rows_of = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(rows_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = recording_ids.take(pa.array(first[rows_of] + within, pa.int64()))
    kept = rows.take(pa.array(rows_of, pa.int64()))
    place = table.schema.get_field_index("uri")
    known = kept.drop_columns([_NAME]).set_column(place, "recording_id", found)
    return NamedRows(known, rows.filter(pa.array(counts == 0)))
