"""Writes a side table again without the values of some recordings."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.side_tables.side_table import (
    SideTable,
    publish_parts,
    read_parts,
    write_part_files,
)


def without_recordings(job: ExtractJob, table: SideTable, ids: Collection[str]) -> SideTable:
    """Return a side table with the same columns that lacks the values of some recordings.

    All columns in the files are written again, also those that the snapshot no longer names.
    One part is in memory at a time; the files are first written to the local disk.

    Raises
    ------
    DatasetError
        A file is missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="melmill-columns-") as folder:
        paths = write_part_files(Path(folder), _kept(job, table, ids))
        return publish_parts(job, paths, table.key, table.columns, table.chunks)


def _kept(job: ExtractJob, table: SideTable, ids: Collection[str]) -> Iterator[pa.Table]:
    erased = pa.array(sorted(ids), pa.string())
    for rows in read_parts(job.store, table):
        yield rows.filter(pc.invert(pc.is_in(rows["recording_id"], value_set=erased)))
