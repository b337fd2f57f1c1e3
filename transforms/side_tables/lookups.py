"""Lookups: the values of side tables for rows, in memory while a split is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.index.tables import read_batches
from melmill.transforms.side_tables.keys import Keys, keys_of, texts_of
from melmill.transforms.side_tables.side_table import SideTable, read_parts
from melmill.transforms.side_tables.spools import Numbers
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class Lookup:
    """Some columns of a side table, sorted by their keys.

    Attributes
    ----------
    key
        Names of the key's columns.
    keys
        Key of each row, in order.
    values
        Values of each row.
    """

    key: tuple[str, ...]
    keys: Keys
    values: pa.Table

    def of(self, rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Return the value of each column for some rows; null where there is none.

        Parameters
        ----------
        rows
            Columns of the rows, which include the key.
        """
        wanted = keys_of([rows[name] for name in self.key])
        places = self.places(wanted)
        taken = self.values.take(pa.array(np.maximum(places, 0), mask=places < 0))
        return {name: taken[name].combine_chunks() for name in taken.column_names}

    def key_texts(self, separator: str) -> list[str]:
        """Return the key of each row as text: the id and the numbers, joined."""
        return texts_of(self.keys, separator)

    def places(self, wanted: Keys) -> Numbers:
        """Return the number of the row with each key; −1 where there is none."""
        if not len(self.keys):
            return np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(self.keys, wanted).clip(0, len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places, -1)


def load_lookups(
    store: Store, index: str, tables: Sequence[SideTable], names: Sequence[str], split: str | None
) -> list[Lookup]:
    """Return the values of columns for the recordings of a split, or of all splits.

    Memory grows with the values of the split, and with the ids of its recordings.

    Parameters
    ----------
    store, index
        Dataset, and index of the snapshot.
    tables
        Side tables of the snapshot.
    names
        Names of added columns.
    split
        Split; ``None`` for all recordings.
    """
    chosen = [(table, [name for name in table.columns if name in names]) for table in tables]
    chosen = [(table, columns) for table, columns in chosen if columns]
    ids = _ids_of(store, index, split) if chosen and split is not None else None
    return [_load(store, table, columns, ids) for table, columns in chosen]


def _ids_of(store: Store, index: str, split: str) -> pa.Array:
    columns = ["recording_id", "split"]
    batches = read_batches(store, index, "recordings", columns)
    ids = [batch.filter(pc.equal(batch["split"], split))["recording_id"] for batch in batches]
    return pa.chunked_array(ids, pa.string()).combine_chunks()


def _load(store: Store, table: SideTable, columns: list[str], ids: pa.Array | None) -> Lookup:
    parts = list(_rows(store, table, columns, ids))
    rows = pa.concat_tables(parts)
    keys = keys_of([rows[name] for name in table.key])
    order = np.argsort(keys, kind="stable")
    return Lookup(table.key, keys[order], rows.select(columns).take(order).combine_chunks())


def _rows(
    store: Store, table: SideTable, columns: list[str], ids: pa.Array | None
) -> Iterator[pa.Table]:
    for rows in read_parts(store, table, [*table.key, *columns]):
        yield rows if ids is None else rows.filter(pc.is_in(rows["recording_id"], value_set=ids))
