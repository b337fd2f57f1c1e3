"""The added columns of a snapshot, for the loaders that join them to the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from melmill.transforms.rows.columns import arrow_type
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.side_tables.coverage import coverage
from melmill.transforms.side_tables.known_recordings import KnownRecordings
from melmill.transforms.side_tables.lookups import Lookup, load_lookups
from melmill.transforms.side_tables.side_table import SideTable


@dataclass(frozen=True)
class AddedColumns:
    """The added columns of a snapshot; nothing is read before it is needed.

    Attributes
    ----------
    known
        The recordings of the snapshot.
    tables
        The side tables of the snapshot.
    """

    known: KnownRecordings
    tables: tuple[SideTable, ...]

    @cached_property
    def types(self) -> dict[str, str]:
        """Return the type of each added column, by name."""
        return {name: kind for table in self.tables for name, kind in table.columns.items()}

    @property
    def of_recordings(self) -> list[str]:
        """Return the names of the columns with a value for each recording."""
        return [name for table in self.tables if not table.is_by_row for name in table.columns]

    def fields(self) -> list[pa.Field]:
        """Return the columns as Arrow's fields."""
        return [pa.field(name, arrow_type(kind)) for name, kind in self.types.items()]

    def lacking(self, split: str, names: Sequence[str]) -> set[str]:
        """Return the columns that have no value in some rows of a split; reads the side tables."""
        counted = coverage(self.known, self.tables, split=split, names=names)
        return {entry.column for entry in counted if entry.lacking}

    def joining(self, names: Sequence[str], split: str | None) -> Joining:
        """Return what joins some of the columns to rows of a split, or of all splits."""
        chosen = tuple(name for name in self.types if name in names)
        return Joining(self.known, self.tables, chosen, split)


@dataclass(frozen=True)
class Joining:
    """Joins added columns to rows; the values are read at the first use.

    The values of the split are in memory.

    Attributes
    ----------
    known, tables
        See :class:`AddedColumns`.
    names
        The names of the columns to join.
    split
        The split of the rows; ``None`` for all splits.
    """

    known: KnownRecordings
    tables: tuple[SideTable, ...]
    names: tuple[str, ...]
    split: str | None

    @cached_property
    def key(self) -> list[str]:
        """Return the names of the columns that the rows must have."""
        names = {*self.names}
        keys = [list(table.key) for table in self.tables if names & table.columns.keys()]
        return max(keys, key=lambda key: len(key), default=[])

    @cached_property
    def lookups(self) -> list[Lookup]:
        """Return the values."""
        known = self.known
        return load_lookups(known.store, known.index, self.tables, self.names, self.split)

    def join(self, batch: RowBatch) -> RowBatch:
        """Return rows with the columns' values, which are Python values."""
        ids = pa.array(batch.columns["recording_id"], pa.string())
        values = self.values_of({**batch.columns, "recording_id": ids})
        added = {name: array.to_pylist() for name, array in values.items()}
        return replace(batch, columns={**batch.columns, **added})

    def values_of(self, rows: Mapping[str, Any]) -> dict[str, pa.Array]:
        """Return the columns' values for rows, whose columns include the key."""
        values: dict[str, pa.Array] = {}
        for lookup in self.lookups:
            values |= lookup.of(rows)
        return values
