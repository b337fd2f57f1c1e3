"""Compression of records that pass between workers."""

from __future__ import annotations

import pyarrow as pa

_SIZE_BYTES = 8


def compress(data: bytes) -> bytes:
    """Return bytes in Zstandard, after their number."""
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return len(data).to_bytes(_SIZE_BYTES, "big") + packed


def decompress(packed: bytes) -> bytes:
    """Return the bytes that :func:`compress` compressed.

    >>> decompress(compress(b"songs"))
    b'songs'
    """
    size = int.from_bytes(packed[:_SIZE_BYTES], "big")
    data: bytes = pa.decompress(packed[_SIZE_BYTES:], size, codec="zstd", asbytes=True)
    return data
