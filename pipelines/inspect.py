"""What the current snapshot of a dataset holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipelines.schemas import row_schema
from transforms.core.errors import DatasetError
from transforms.rows.schema import RowSchema
from transforms.snapshot.card import band_statistics, statistics
from transforms.snapshot.delta import Snapshot, require_snapshot
from transforms.snapshot.totals import Totals, add_up
from transforms.store.endpoints import require_reachable
from transforms.store.folders import Store


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


def inspection_json(root: str, inspection: Inspection) -> dict[str, Any]:
    """Give an inspection as plain values."""
    from pipelines.present import totals_json

    schema = inspection.schema
    return {
        "dataset": root,
        "version": inspection.snapshot.version,
        "index": inspection.snapshot.index,
        "catalogue": inspection.snapshot.catalogue,
        "configuration": inspection.snapshot.configuration,
        "features": json.loads(inspection.snapshot.features),
        "shape": [schema.n_mels, schema.n_frames],
        "dtype": "float32",
        "columns": {**schema.columns(), "mel": "list<list<float>>"},
        **totals_json(inspection.totals),
        "failure_examples": inspection.totals.examples,
        "statistics": statistics(inspection.totals),
    }


def inspection_text(root: str, inspection: Inspection) -> str:
    """Say what a snapshot holds."""
    from pipelines.present import totals_lines

    snapshot, schema = inspection.snapshot, inspection.schema
    columns = ", ".join(f"{name} {kind}" for name, kind in schema.columns().items())
    lines = [
        f"{root}, version {snapshot.version}, made from {snapshot.catalogue}",
        *totals_lines(inspection.totals),
        f"  mel: float32 [{schema.n_mels}, {schema.n_frames}]; {columns}",
        f"  {_statistics_line(band_statistics(inspection.totals))}",
        "  configuration:",
    ]
    for section, values in snapshot.configuration.items():
        lines.append(f"    {section}: {json.dumps(values, ensure_ascii=False)}")
    return "\n".join(lines)


def _statistics_line(found: dict[str, Any]) -> str:
    if not found:
        return "no statistics"
    mean, std = found["mean"], found["std"]
    return (
        f"statistics of {found['split']}: band means {min(mean):.2f} to {max(mean):.2f}, "
        f"standard deviations {min(std):.2f} to {max(std):.2f}, "
        f"values {found['min']:.2f} to {found['max']:.2f}"
    )
