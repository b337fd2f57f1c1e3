"""What a run did with the columns that were added to the dataset before."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.side_tables.coverage import Coverage, coverage


@dataclass(frozen=True, slots=True)
class KeptColumns:
    """The added columns after a run.

    Attributes
    ----------
    coverage
        How many recordings have values in each added column.
    dropped
        Names of the added columns that the new snapshot does not have.
    """

    coverage: tuple[Coverage, ...] = ()
    dropped: tuple[str, ...] = ()


def kept_columns(opened: OpenSnapshot, before: OpenSnapshot | None) -> KeptColumns:
    """Return what became of the added columns between two snapshots."""
    tables = opened.snapshot.side_tables
    earlier = before.snapshot.side_tables if before else ()
    names = {name for table in tables for name in table.columns}
    dropped = (name for table in earlier for name in table.columns if name not in names)
    known = before.known_recordings if before else None
    counted = coverage(opened.known_recordings, tables, before=known)
    return KeptColumns(tuple(counted), tuple(dropped))
