"""What the current snapshot of a dataset holds."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.pipelines.snapshots.open import row_schema
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.delta import Snapshot, require_snapshot
from melmill.transforms.snapshot.totals import Totals, add_up
from melmill.transforms.store.endpoints import require_reachable
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class Inspection:
    """A snapshot, opened."""

    snapshot: Snapshot
    totals: Totals
    schema: RowSchema


def inspect(store: Store) -> Inspection:
    """Read a dataset's current snapshot.

    Raises
    ------
    DatasetError
        There is none, or it lacks a part.
    """
    require_reachable(store.root, store.storage_options, DatasetError)
    snapshot = require_snapshot(store)
    totals = add_up(store, snapshot.index)
    return Inspection(snapshot, totals, row_schema(store, snapshot))
