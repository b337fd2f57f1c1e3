"""Files as they should not be: healthy ones, with a few bytes changed."""

from __future__ import annotations

import struct

from transforms.audio import mpeg, ogg


def strip_xing(data: bytes) -> bytes:
    """An MP3 as encoders leave it that write no tag."""
    return data[mpeg.parse_frame(data).size_bytes :]


def with_data_size(data: bytes, size: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def without_total(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg with another stream's number on every page."""
    pages, at = b"", 0
    while page := ogg.parse_page(data, at, 0):
        pages += sign_page(
            data[at : at + 14] + struct.pack("<I", serial) + data[at + 18 : page.end]
        )
        at = page.end
    return pages


def ogg_page(body: bytes, flags: int = 0, serial: int = 1) -> bytes:
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = b"OggS\0" + struct.pack("<BqIIIB", flags, 1, serial, 0, 0, len(lacing))
    return sign_page(head + lacing + body)


def sign_page(page: bytes) -> bytes:
    """The page with its checksum, computed bit by bit as the specification has it."""
    checksum = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def with_granules_moved(data: bytes, frames: int) -> bytes:
    """An Ogg stream whose audio pages say other positions."""
    pages, at = b"", 0
    while page := ogg.parse_page(data, at, 0):
        granule = page.granule + frames if page.granule > 0 else page.granule
        pages += sign_page(
            data[at : at + 6] + struct.pack("<q", granule) + data[at + 14 : page.end]
        )
        at = page.end
    return pages
