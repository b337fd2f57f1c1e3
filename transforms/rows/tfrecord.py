"""TFRecord shards: a ``tf.train.Example`` for each row, framed with masked CRC-32C.

:mod:`~melmill.transforms.rows.tf_example` serialises and parses the Examples.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import google_crc32c

from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.shard_file import ShardFile
from melmill.transforms.rows.tf_example import encode_examples, parse_example

__all__ = ["TFRecordShard", "encode_examples", "parse_example", "read_records"]

_MAX_RECORD_BYTES = 2**31 - 1  # protobuf's limit for a message


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


class TFRecordShard(ShardFile):
    """A writer of a shard to a local file, record by record.

    Parameters
    ----------
    path, schema
        See :class:`~melmill.transforms.rows.shard_file.ShardFile`.
    """

    def __init__(self, path: str | Path, schema: RowSchema) -> None:
        """Create the file."""
        super().__init__(path, schema)
        self._file = self._path.open("wb")

    def add(self, batch: RowBatch) -> None:
        """Write a record for each row; raises the errors of :func:`encode_examples`."""
        for example in encode_examples(batch, self._schema):
            length = struct.pack("<Q", len(example))
            self._file.write(length + _masked_crc(length))
            self._file.write(example)
            self._file.write(_masked_crc(example))
        self.rows += batch.rows

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def read_records(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Parameters
    ----------
    file
        Binary file, at the start of a record.

    Yields
    ------
    bytes
        Data of a record, after both checksums were verified.

    Raises
    ------
    ValueError
        If a checksum is wrong or the file ends inside a record; the message names the
        record's byte offset.
    """
    offset = 0
    while head := file.read(12):
        length = _record_length(head, offset)
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise ValueError(f"record at byte {offset}: the file ends inside the record")
        data = body[:-4]
        if body[-4:] != _masked_crc(data):
            raise ValueError(f"record at byte {offset}: the checksum of the data is wrong")
        yield data
        offset += 12 + length + 4


def _record_length(head: bytes, offset: int) -> int:
    if len(head) < 12:
        raise ValueError(f"record at byte {offset}: the file ends inside the record")
    if head[8:] != _masked_crc(head[:8]):
        raise ValueError(f"record at byte {offset}: the checksum of the length is wrong")
    length = int.from_bytes(head[:8], "little")
    if length > _MAX_RECORD_BYTES:
        raise ValueError(
            f"record at byte {offset}: its length is {length} bytes; at most "
            f"{_MAX_RECORD_BYTES:,} are allowed"
        )
    return length
