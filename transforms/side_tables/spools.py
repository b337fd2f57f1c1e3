"""A spool: rows on the local disk, divided into buckets, each of which fits into memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from melmill.transforms.core.naming import bucket

Numbers = npt.NDArray[np.int64]

#: Size of the rows that are kept in memory before they are written.
_BUFFER_BYTES = 32 << 20


class Spool:
    """Rows that come in any order, and are read again bucket by bucket.

    A bucket holds all rows with the same key, because a digest of the key chooses it.

    Parameters
    ----------
    folder
        Empty local folder.
    schema
        Columns of the rows.
    key
        Column that decides the bucket of a row.
    buckets
        Number of buckets.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: str, buckets: int) -> None:
        folder.mkdir()
        self._folder, self._schema, self._key, self.buckets = folder, schema, key, buckets
        self._buffer: list[pa.Table] = []
        self._size_bytes = 0

    def add(self, rows: pa.Table) -> None:
        """Add rows."""
        self._buffer.append(rows)
        self._size_bytes += rows.nbytes
        if self._size_bytes >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        rows = pa.concat_tables(self._buffer)
        self._buffer, self._size_bytes = [], 0
        numbers = buckets_of(rows[self._key], self.buckets)
        order = np.argsort(numbers, kind="stable")
        ordered, edges = rows.take(order), np.searchsorted(numbers[order], np.arange(self.buckets))
        for number, start, stop in zip(
            range(self.buckets), edges, [*edges[1:], len(numbers)], strict=True
        ):
            if stop > start:
                self._append(number, ordered.slice(start, stop - start))

    def _append(self, number: int, rows: pa.Table) -> None:
        # Each flush appends a stream of its own, so that no file stays open.
        with (
            self._path(number).open("ab") as file,
            pa.ipc.new_stream(file, self._schema) as writer,
        ):
            writer.write_table(rows)

    def read(self, number: int) -> pa.Table:
        """Return the rows of a bucket, in the order in which they were added."""
        self._flush()
        tables = [self._schema.empty_table()]
        path = self._path(number)
        if path.exists():
            size = path.stat().st_size
            with path.open("rb") as file:
                while file.tell() < size:
                    tables.append(pa.ipc.open_stream(file).read_all())
        return pa.concat_tables(tables)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.arrows"


def buckets_of(keys: pa.ChunkedArray, number: int) -> Numbers:
    """Return the bucket of each key, as :func:`~melmill.transforms.core.naming.bucket` does.

    >>> buckets_of(pa.chunked_array([["a", "b", "a"]]), 4).tolist()
    [3, 2, 3]
    """
    if number == 1:
        return np.zeros(len(keys), np.int64)
    encoded = keys.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    distinct = _buckets(encoded.dictionary.to_pylist(), number)
    numbers: Numbers = distinct[encoded.indices.to_numpy()]
    return numbers


def _buckets(keys: Iterable[str], number: int) -> Numbers:
    return np.fromiter((bucket(key, number) for key in keys), np.int64)
