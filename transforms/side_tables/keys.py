"""The keys of rows as fixed-length bytes, which sort and compare as the keys do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Keys = npt.NDArray[np.bytes_]

_ID_BYTES = 32


def keys_of(columns: Sequence[Any]) -> Keys:
    """Return the key of each row.

    Parameters
    ----------
    columns
        Ids of recordings as an Arrow array, then numbers of chunks and channels as arrays.

    Raises
    ------
    ValueError
        If an id is not a digest.

    Examples
    --------
    >>> ids = pa.array(["b" * 32, "a" * 32])
    >>> keys_of([ids]).argsort().tolist(), keys_of([ids, np.array([7, 300])]).itemsize
    ([1, 0], 36)
    """
    ids, *numbers = columns
    # NumPy pads bytes with zeros, and ignores them in comparisons: all keys have the same length.
    parts = [_bytes_of(ids)]
    parts += [np.asarray(number, ">u4").reshape(-1, 1).view(np.uint8) for number in numbers]
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return joined.view(f"S{joined.shape[1]}").reshape(-1)


def texts_of(keys: Keys, separator: str) -> list[str]:
    """Return keys as text: the id and the numbers, joined.

    >>> texts_of(keys_of([pa.array(["b" * 32]), np.array([300])]), "/")[0][-5:]
    'b/300'
    """
    parts = keys.view(np.uint8).reshape(len(keys), keys.itemsize)
    ids = np.ascontiguousarray(parts[:, :_ID_BYTES]).view(f"S{_ID_BYTES}").reshape(-1)
    numbers = np.ascontiguousarray(parts[:, _ID_BYTES:]).view(">u4")
    return [
        separator.join([name.decode(), *map(str, row)])
        for name, row in zip(ids.tolist(), numbers.tolist(), strict=True)
    ]


def _bytes_of(ids: Any) -> npt.NDArray[np.uint8]:
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if isinstance(ids, pa.ChunkedArray):  # too long for one array
        return np.concatenate([_bytes_of(chunk) for chunk in ids.chunks])
    if not len(ids):  # Arrow has no buffer for an empty array
        return np.zeros((0, _ID_BYTES), np.uint8)
    fixed = ids.cast(pa.binary()).cast(pa.binary(_ID_BYTES))
    start = fixed.offset * _ID_BYTES
    data = np.frombuffer(fixed.buffers()[1], np.uint8)
    return data[start : start + len(fixed) * _ID_BYTES].reshape(-1, _ID_BYTES)
