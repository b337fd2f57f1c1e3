"""Files as they should not be: healthy ones, with a few bytes changed."""

from __future__ import annotations

import re
import struct

from melmill.transforms.decode import flac, mpeg, ogg


def strip_xing(data: bytes) -> bytes:
    """An MP3 as encoders leave it that write no tag."""
    return data[mpeg.parse_frame(data).size_bytes :]


def with_data_size(data: bytes, size: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def without_total(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def with_seek_point(data: bytes, sample: int, offset: int) -> bytes:
    """A FLAC with a seek table of one point, right or wrong."""
    table = struct.pack(">QQH", sample, offset, 4096)
    head = data[:4] + bytes([data[4] & 0x7F]) + data[5:42]
    return head + bytes([3 | data[4] & 0x80, 0, 0, len(table)]) + table + data[42:]


def variable_flac(parts: list[bytes], total: int) -> bytes:
    """A FLAC of frames of any sizes, each of which says where it begins; from FLACs of a frame."""
    frames, begin = b"", 0
    for part in parts:
        frame = part[re.search(rb"\xff\xf8", part[42:]).start() + 42 :]
        found = flac.parse_frame(frame[:16])
        rest = frame[5 : 5 + {6: 1, 7: 2}.get(frame[2] >> 4, 0)]
        start = b"\xff\xf9" + frame[2:4] + chr(begin).encode() + rest
        whole = start + bytes([flac._crc8(start)]) + frame[6 + len(rest) : -2]
        frames += whole + struct.pack(">H", _crc16(whole))
        begin += found.samples
    largest = max(len(part) for part in parts).to_bytes(3, "big")
    head = b"fLaC\x80\0\0\x22" + struct.pack(">HH3x", 16, 65535) + largest + parts[0][18:21]
    return head + bytes([parts[0][21] & 0xF0]) + struct.pack(">I16x", total) + frames


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
    return value


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


#: Format of tests.signals -> the word before the audio's size, bytes between, and its packing.
SIZE_FIELDS = {
    **dict.fromkeys(("wav", "wav24", "wavex", "wav_float"), (b"data", 0, "<I")),
    "rf64": (b"ds64", 12, "<Q"),
    "w64": (b"data\xf3\xac\xd3\x11", 8, "<Q"),
    **dict.fromkeys(("aiff", "aiff_float"), (b"SSND", 0, ">I")),
    "au": (b".snd", 4, ">I"),
    "caf": (b"data", 0, ">Q"),
}


def with_size(data: bytes, format: str, size: int) -> bytes:
    """A file whose header says another size of the audio."""
    word, between, form = SIZE_FIELDS[format]
    at = data.index(word) + len(word) + between
    return data[:at] + struct.pack(form, size) + data[at + struct.calcsize(form) :]


def size_of(data: bytes, format: str) -> int:
    word, between, form = SIZE_FIELDS[format]
    return struct.unpack_from(form, data, data.index(word) + len(word) + between)[0]


def with_envelope_grown(data: bytes, format: str, extra: int) -> bytes:
    """A file whose outermost size counts more bytes than there are."""
    if format == "voc":  # of the last block, without the byte that ends the file
        data = data.rstrip(b"\0") if data.endswith(b"\0") else data
        at = struct.unpack_from("<H", data, 20)[0] + 1
        size = len(data) - at - 3 + extra
        return data[:at] + struct.pack("<I", size)[:3] + data[at + 3 :]
    at, form = {"avi": (4, "<I"), "8svx": (4, ">I")}.get(format, (0, "<Q"))
    if format == "wma":
        at = struct.unpack_from("<Q", data, 16)[0] + 16
        size = len(data) - at + 16 + extra
    else:
        size = len(data) - 8 + extra
    return data[:at] + struct.pack(form, size) + data[at + struct.calcsize(form) :]


def with_xing(data: bytes, frames: int | None = None, size: int | None = None) -> bytes:
    """An MP3 whose tag counts other frames or bytes."""
    at = mpeg.parse_frame(data).tag_offset
    counts = struct.unpack_from(">II", data, at + 8)
    counts = frames if frames is not None else counts[0], size if size is not None else counts[1]
    return data[: at + 8] + struct.pack(">II", *counts) + data[at + 16 :]


def pages_of(data: bytes) -> list[bytes]:
    """The pages of an Ogg stream."""
    pages, at = [], 0
    while page := ogg.parse_page(data, at, 0):
        pages.append(data[at : page.end])
        at = page.end
    return pages


def with_numbers_moved(data: bytes, by: int) -> bytes:
    """The Ogg stream of a listener who joins late: the headers, and pages of later numbers."""
    headers, pages = pages_of(data)[:2], pages_of(data)[2:]
    for page in pages:
        number = struct.unpack_from("<I", page, 18)[0] + by
        headers.append(sign_page(page[:18] + struct.pack("<I", number) + page[22:]))
    return b"".join(headers)


def without_end(data: bytes) -> bytes:
    """An Ogg stream whose last page is not marked as such."""
    page = last_page(data)
    signed = sign_page(data[page.start : page.start + 5] + b"\0" + data[page.start + 6 : page.end])
    return data[: page.start] + signed + data[page.end :]


def last_page(data: bytes) -> ogg.Page:
    at, last = 0, None
    while page := ogg.parse_page(data, at, 0):
        at, last = page.end, page
    return last


def without_page(data: bytes, number: int) -> bytes:
    """An Ogg stream that lacks a page."""
    at = 0
    for _ in range(number):
        at = ogg.parse_page(data, at, 0).end
    return data[:at] + data[ogg.parse_page(data, at, 0).end :]
