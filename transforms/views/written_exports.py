"""Records of a dataset's exports, kept in the dataset.

A takedown cannot change an export, which is a copy. It therefore names the exports that hold
recordings which it erases.
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
    """The record of an export, written when the export starts.

    Attributes
    ----------
    output
        Absolute URI of the export's folder.
    format
        Layout of the export.
    version, index
        Version and index of the exported snapshot.
    """

    output: str
    format: str
    version: int
    index: str


def write_export_record(store: Store, record: ExportRecord) -> None:
    """Write the record of an export into its dataset; a repeated export has the same record."""
    name = digest(record.output, record.format, record.index)
    store.put(f"runs/{name}-export.json", json.dumps(asdict(record), indent=1).encode())


def read_export_records(store: Store) -> Iterator[ExportRecord]:
    """Yield all records of a dataset's exports."""
    for name in sorted(store.names("runs")):
        if _NAME.fullmatch(name):
            yield ExportRecord(**json.loads(store.read(name)))
