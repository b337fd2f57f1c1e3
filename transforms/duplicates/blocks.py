"""Blocks: compressed arrays of postings or votes, as they pass between workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.compression import compress, decompress


def pack(rows: npt.NDArray[Any]) -> bytes:
    """Return the rows of a structured array as compressed bytes.

    Columns are compressed one after another: sorted numbers have most bytes in common.
    """
    names = rows.dtype.names or ()
    columns = b"".join(
        np.ascontiguousarray(rows[name]).view(np.uint8).reshape(len(rows), -1).T.tobytes()
        for name in names
    )
    return compress(columns)


def unpack(block: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the rows that :func:`pack` packed.

    >>> rows = np.array([(1, 2.5), (3, 4.5)], [("a", "<u4"), ("b", "<f8")])
    >>> unpack(pack(rows), rows.dtype).tolist()
    [(1, 2.5), (3, 4.5)]
    """
    columns = np.frombuffer(decompress(block), np.uint8)
    rows = np.empty(len(columns) // dtype.itemsize, dtype)
    start = 0
    for name in dtype.names or ():
        width = dtype[name].itemsize
        planes = columns[start : start + width * len(rows)].reshape(width, len(rows))
        rows[name] = np.ascontiguousarray(planes.T).view(dtype[name])[:, 0]
        start += width * len(rows)
    return rows
