"""TFRecord shards: one ``tf.train.Example`` a row, framed with masked CRC-32C.

The Examples themselves are packed and parsed in :mod:`~melmill.transforms.rows.tf_example`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import google_crc32c

from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.tf_example import encode_examples, parse_example

__all__ = ["TFRecordShard", "encode_examples", "parse_example", "read_records"]

_MAX_RECORD_BYTES = 2**31 - 1  # protobuf's own limit on a message


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


class TFRecordShard:
    """One shard being written to a local file, record after record.

    As a context manager it leaves a whole file, or, after an exception, none.

    Parameters
    ----------
    path
        Where to write. Only local: stores are given whole files.
    schema
        The dataset's columns.

    Attributes
    ----------
    rows
        How many rows were added so far.
    """

    def __init__(self, path: str | Path, schema: RowSchema) -> None:
        """Create the file."""
        self.rows = 0
        self._path = Path(path)
        self._schema = schema
        self._file = self._path.open("wb")

    def add(self, batch: RowBatch) -> None:
        """Write one record for each row; see :func:`encode_examples` for what can fail."""
        for example in encode_examples(batch, self._schema):
            length = struct.pack("<Q", len(example))
            self._file.write(length + _masked_crc(length))
            self._file.write(example)
            self._file.write(_masked_crc(example))
        self.rows += batch.rows

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Give the shard itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and remove it if an exception ended the block."""
        self.close()
        # A TFRecord file has no footer: cut at a record's end, it would pass for whole.
        if kind is not None:
            self._path.unlink()


def read_records(file: IO[bytes]) -> Iterator[bytes]:
    """Read the records of a TFRecord file, one after another.

    Parameters
    ----------
    file
        A binary file at the start of a record.

    Yields
    ------
    bytes
        One record's data, after both of its checksums were found right.

    Raises
    ------
    ValueError
        If a checksum is wrong or the file ends inside a record; names the byte offset
        of that record.
    """
    offset = 0
    while head := file.read(12):
        length = _record_length(head, offset)
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise ValueError(f"record at byte {offset}: the file ends inside it")
        data = body[:-4]
        if body[-4:] != _masked_crc(data):
            raise ValueError(f"record at byte {offset}: the checksum of its data is wrong")
        yield data
        offset += 12 + length + 4


def _record_length(head: bytes, offset: int) -> int:
    if len(head) < 12:
        raise ValueError(f"record at byte {offset}: the file ends inside it")
    if head[8:] != _masked_crc(head[:8]):
        raise ValueError(f"record at byte {offset}: the checksum of its length is wrong")
    length = int.from_bytes(head[:8], "little")
    if length > _MAX_RECORD_BYTES:
        raise ValueError(f"record at byte {offset}: {length} bytes are more than a record can be")
    return length
