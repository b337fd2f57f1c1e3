"""The pages of a Parquet column: where each one's data is in the file.

Arrow gives the values of a column, but not the places of its pages. The header of a page is a
struct in Thrift's compact protocol; see ``parquet.thrift`` in apache/parquet-format 2.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from melmill.transforms.store.archives import BadArchiveError

#: Number of bytes that are read for a header; a header has a few dozen, with statistics more.
_HEADER_BYTES = 4_096
#: Largest number of bytes that a header may have.
_MOST_HEADER_BYTES = 2**24

# Fields of PageHeader, and of DataPageHeaderV2.
_UNPACKED_BYTES, _STORED_BYTES, _DATA_PAGE_V2 = 2, 3, 8
_DEFINITION_BYTES, _REPETITION_BYTES, _IS_COMPRESSED = 5, 6, 7

# Types of the compact protocol.
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)


@dataclass(frozen=True, slots=True)
class PageData:
    """The data of a page.

    Attributes
    ----------
    start, stored_bytes
        Place in the file.
    unpacked_bytes
        Number of bytes after decompression.
    is_compressed
        Whether the data is compressed, if the column has a codec.
    """

    start: int
    stored_bytes: int
    unpacked_bytes: int
    is_compressed: bool = True


def read_pages(file: Any, start: int, stop: int) -> Iterator[PageData]:
    """Yield the pages of a column chunk.

    Parameters
    ----------
    file
        Binary file that can seek.
    start, stop
        First byte of the chunk, and the byte after its last.

    Raises
    ------
    BadArchiveError
        If a header is damaged, or a page leads out of the chunk.
    """
    while start < stop:
        header, size = _read_header(file, start)
        try:
            unpacked_bytes, stored_bytes = header[_UNPACKED_BYTES], header[_STORED_BYTES]
            # The second version has levels, which are not compressed, before the values.
            second = header.get(_DATA_PAGE_V2, {})
            levels = second.get(_DEFINITION_BYTES, 0) + second.get(_REPETITION_BYTES, 0)
            end = start + size + stored_bytes
            if not (0 <= levels <= stored_bytes and levels <= unpacked_bytes and end <= stop):
                raise ValueError(f"{stored_bytes:,} bytes lead out of the column")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadArchiveError(f"has a damaged page at byte {start:,}: {error}") from error
        yield PageData(
            start + size + levels,
            stored_bytes - levels,
            unpacked_bytes - levels,
            second.get(_IS_COMPRESSED, True),
        )
        start = end


def _read_header(file: Any, start: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a page's header by their numbers, and the header's size."""
    size = _HEADER_BYTES
    while True:
        file.seek(start)
        data = file.read(size)
        try:
            return _struct(data, 0)
        except IndexError as error:
            if len(data) < size or size >= _MOST_HEADER_BYTES:
                raise BadArchiveError(f"ends within the page at byte {start:,}") from error
        except ValueError as error:
            raise BadArchiveError(f"has a damaged page at byte {start:,}: {error}") from error
        size *= 16


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct, and the position after it."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != _STOP:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, head & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == _STRUCT:
        return _struct(data, at)
    if kind not in (_BYTE, _DOUBLE, _BINARY):
        raise ValueError(f"a header has no values of the type {kind}")
    size, at = _unsigned(data, at) if kind == _BINARY else (1 if kind == _BYTE else 8, at)
    if at + size > len(data):
        raise IndexError
    return data[at : at + size], at + size


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return a signed number, whose lowest bit is its sign."""
    number, at = _unsigned(data, at)
    return number >> 1 ^ -(number & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits for each byte, the lowest first."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
