"""Where recordings begin in their files: segments begin later than their files do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melmill.pipelines.explore.chunk_rows import ChunkReader
from melmill.transforms.core.errors import DatasetError


def is_segment(row: Mapping[str, Any]) -> bool:
    """Return whether a recording of the index is shorter than its file.

    >>> is_segment({"seconds": 3.0, "frames": 8000, "sample_rate_hz": 1000})
    True
    """
    if not row["frames"] or row["seconds"] is None:
        return False
    return bool(row["seconds"] < row["frames"] / row["sample_rate_hz"] - 0.001)


def find_start(row: Mapping[str, Any], chunks: ChunkReader) -> float | None:
    """Return the second of the file at which a recording begins; ``None`` if it is not known.

    The index does not hold it: the first row of a segment does, if its shard can be read.
    """
    if not is_segment(row):
        return 0.0
    try:
        rows = chunks.chunks(row)
    except DatasetError:  # the pages of the chunks say what is wrong with the shard
        return None
    return rows[0].start_seconds if rows else None
