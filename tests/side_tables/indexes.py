"""Small indexes and jobs, to add values to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.catalogue.tables import Table
from melmill.transforms.core.naming import bucket, recording_id
from melmill.transforms.index.tables import write_part
from melmill.transforms.plan.job import ExtractJob, Limits, WriterSpec
from melmill.transforms.plan.packing import ShardSpec
from melmill.transforms.plan.splits import SplitSpec
from melmill.transforms.side_tables.known_recordings import KnownRecordings
from melmill.transforms.store.folders import Store
from tests.plans import FEATURES

INDEX = "f" * 32


def recording(name: str, rows: int = 3, split: str = "train", channels: int = 1) -> dict[str, Any]:
    """Return a recording's row of an index; its catalogue is the folder ``/songs``."""
    return {
        "recording_id": recording_id(name),
        "uri": f"/songs/{name}",
        "split": split,
        "status": "ok" if rows else "failed",
        "rows": rows,
        "channels": channels,
    }


def write_index(
    store: Store, recordings: Sequence[dict[str, Any]], parts: int = 1, index: str = INDEX
) -> KnownRecordings:
    for part in range(parts):
        own = [row for row in recordings if bucket(row["recording_id"], parts) == part]
        write_part(store, index, "recordings", part, own)
    return KnownRecordings(store, index, parts)


def make_job(store: Store) -> ExtractJob:
    return ExtractJob(
        Catalogue("/songs", Table("/songs", "/songs")),
        store,
        FEATURES,
        SplitSpec(),
        ShardSpec(1 << 20, 1, 0),
        WriterSpec(("parquet",), 64, 3),
        Limits(60, 3600, 1 << 30, 0.1),
    )
