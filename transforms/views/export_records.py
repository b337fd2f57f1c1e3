"""Where a dataset was exported to: a small record of each export, kept in the dataset.

An export is a copy that no takedown reaches, so a takedown names those that hold what it erases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from melmill.transforms.core.naming import digest
from melmill.transforms.store.folders import Store

_NAME = re.compile(r"runs/[0-9a-f]{32}-export\.json")


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """An export that was begun.

    Attributes
    ----------
    output
        Absolute URI of its folder.
    format
        The layout.
    version, index
        The snapshot that it was made from.
    """

    output: str
    format: str
    version: int
    index: str


def write_export_record(store: Store, record: ExportRecord) -> None:
    """Record an export in its dataset; the same export has one record, however often it runs."""
    name = digest(record.output, record.format, record.index)
    store.put(f"runs/{name}-export.json", json.dumps(asdict(record), indent=1).encode())


def read_export_records(store: Store) -> Iterator[ExportRecord]:
    """Read all records of a dataset's exports."""
    for name in sorted(store.names("runs")):
        if _NAME.fullmatch(name):
            yield ExportRecord(**json.loads(store.read(name)))
