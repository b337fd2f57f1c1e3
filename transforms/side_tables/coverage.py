"""Which recordings have a value in an added column, and which lack it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.index.tables import read_part
from melmill.transforms.side_tables.known_recordings import (
    KnownRecordings,
    limits_of_rows,
    with_side_parts,
)
from melmill.transforms.side_tables.side_table import SideTable
from melmill.transforms.side_tables.spools import Numbers, buckets_of

_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many recordings have values in an added column.

    Attributes
    ----------
    column
        Name of the column.
    recordings
        Number of recordings that can have values: those with rows.
    lacking
        Number of these recordings that lack a value, or lack it in some rows.
    new
        Number of the lacking recordings that an earlier snapshot does not have.
    examples
        URIs of some lacking recordings; new recordings first.
    """

    column: str
    recordings: int = 0
    lacking: int = 0
    new: int = 0
    examples: tuple[str, ...] = ()


def coverage(
    known: KnownRecordings,
    tables: Iterable[SideTable],
    *,
    before: KnownRecordings | None = None,
    split: str | None = None,
    names: Sequence[str] | None = None,
) -> list[Coverage]:
    """Return how many recordings have values in each added column.

    One part of the index and one part of a side table are in memory at a time.

    Parameters
    ----------
    known
        Recordings of the snapshot.
    tables
        Side tables of the snapshot.
    before
        Recordings of an earlier snapshot; the other recordings are new.
    split
        Split whose recordings are counted; ``None`` for all.
    names
        Added columns to count; ``None`` for all.
    """
    counted: list[Coverage] = []
    for table in tables:
        chosen = [name for name in table.columns if names is None or name in names]
        if chosen:
            counted += _of_table(known, table, chosen, before, split)
    return counted


@dataclass(slots=True)
class _Count:
    recordings: int = 0
    lacking: int = 0
    new: int = 0
    new_uris: tuple[str, ...] = ()
    old_uris: tuple[str, ...] = ()

    def add(self, lacking: pa.Table, is_new: pa.Array, recordings: int) -> None:
        self.recordings += recordings
        self.lacking += lacking.num_rows
        self.new += pc.sum(is_new).as_py() or 0
        for kind, mask in (("new_uris", is_new), ("old_uris", pc.invert(is_new))):
            uris = (*getattr(self, kind), *lacking.filter(mask)["uri"].to_pylist())
            setattr(self, kind, tuple(sorted(uris)[:_EXAMPLES]))


def _of_table(
    known: KnownRecordings,
    table: SideTable,
    names: list[str],
    before: KnownRecordings | None,
    split: str | None,
) -> Iterator[Coverage]:
    counts: defaultdict[str, _Count] = defaultdict(_Count)
    for recordings, side in with_side_parts(known, table, [*table.key, *names]):
        chosen = recordings.filter(_can_have_values(recordings, split))
        valid = _count_values(chosen, side, table, names)
        needed = chosen["rows"].to_numpy() if table.is_by_row else 1
        for name in names:
            lacking = chosen.filter(pa.array(valid[name] < needed, pa.bool_()))
            counts[name].add(lacking, _is_new(lacking, before), chosen.num_rows)
    for name in names:
        count = counts[name]
        examples = (*count.new_uris, *count.old_uris)[:_EXAMPLES]
        yield Coverage(name, count.recordings, count.lacking, count.new, examples)


def _can_have_values(recordings: pa.Table, split: str | None) -> pa.Array:
    has_rows = pc.greater(recordings["rows"], 0)
    return has_rows if split is None else pc.and_(has_rows, pc.equal(recordings["split"], split))


def _count_values(
    recordings: pa.Table, side: Iterable[pa.Table], table: SideTable, names: list[str]
) -> dict[str, Numbers]:
    """Return the number of values in each column, for each recording."""
    ids = recordings["recording_id"].combine_chunks()
    limits = limits_of_rows(recordings, "channel" in table.key)
    counts = {name: np.zeros(len(ids), np.int64) for name in names}
    for rows in side:
        places = pc.index_in(rows["recording_id"], value_set=ids)
        own = places.fill_null(0).to_numpy()
        found = places.is_valid().to_numpy()
        for name, limit in zip(table.key[1:], limits, strict=False) if len(ids) else ():
            found = found & (rows[name].to_numpy() < limit[own])
        for name in names:
            has_value = found & rows[name].is_valid().to_numpy()
            counts[name] += np.bincount(own[has_value], minlength=len(ids))[: len(ids)]
    return counts


def _is_new(recordings: pa.Table, before: KnownRecordings | None) -> pa.Array:
    """Return which recordings the earlier index lacks."""
    is_new = np.zeros(recordings.num_rows, bool)
    if before is None or not recordings.num_rows:
        return pa.array(is_new, pa.bool_())
    ids = recordings["recording_id"]
    known = pa.nulls(0, pa.string())
    for part in np.unique(buckets_of(ids, before.parts)).tolist():
        rows = read_part(before.store, before.index, "recordings", part, ["recording_id"])
        known = pa.concat_arrays([known, rows["recording_id"].combine_chunks()])
    return pc.invert(pc.is_in(ids, value_set=known)).combine_chunks()
