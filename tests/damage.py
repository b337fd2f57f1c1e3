"""Damage healthy audio files by changing a few bytes."""

from __future__ import annotations

import re
import struct

from melmill.transforms.decode import flac, mpeg, ogg


def strip_xing(data: bytes) -> bytes:
    """Return an MP3 without its tag, like an MP3 from an encoder that writes no tag."""
    return data[mpeg.parse_frame(data).size_bytes :]


def with_data_size(data: bytes, size: int) -> bytes:
    offset = data.index(b"data") + 4
    return data[:offset] + struct.pack("<I", size) + data[offset + 4 :]


def without_total(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def with_seek_point(data: bytes, sample: int, offset: int) -> bytes:
    """Return a FLAC with a seek table of one point, which may be wrong."""
    table = struct.pack(">QQH", sample, offset, 4096)
    head = data[:4] + bytes([data[4] & 0x7F]) + data[5:42]
    return head + bytes([3 | data[4] & 0x80, 0, 0, len(table)]) + table + data[42:]


def variable_flac(parts: list[bytes], total: int) -> bytes:
    """Return a FLAC whose frames have different sizes, and whose frame headers give their position.

    Each of `parts` is a FLAC with one frame.
    """
    frames, position = b"", 0
    for part in parts:
        frame = part[re.search(rb"\xff\xf8", part[42:]).start() + 42 :]
        header = flac.parse_frame(frame[:16])
        rest = frame[5 : 5 + {6: 1, 7: 2}.get(frame[2] >> 4, 0)]
        start = b"\xff\xf9" + frame[2:4] + chr(position).encode() + rest
        signed = start + bytes([flac._crc8(start)]) + frame[6 + len(rest) : -2]
        frames += signed + struct.pack(">H", _crc16(signed))
        position += header.samples
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
    """Return an Ogg file with another stream number on every page."""
    pages, offset = b"", 0
    while page := ogg.parse_page(data, offset, 0):
        pages += sign_page(
            data[offset : offset + 14] + struct.pack("<I", serial) + data[offset + 18 : page.end]
        )
        offset = page.end
    return pages


def ogg_page(body: bytes, flags: int = 0, serial: int = 1) -> bytes:
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = b"OggS\0" + struct.pack("<BqIIIB", flags, 1, serial, 0, 0, len(lacing))
    return sign_page(head + lacing + body)


def sign_page(page: bytes) -> bytes:
    """Return the page with its checksum, computed bit by bit as in the specification."""
    checksum = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def with_granules_moved(data: bytes, frames: int) -> bytes:
    """Return an Ogg file whose audio pages have positions moved by `frames`."""
    pages, offset = b"", 0
    while page := ogg.parse_page(data, offset, 0):
        granule = page.granule + frames if page.granule > 0 else page.granule
        pages += sign_page(
            data[offset : offset + 6] + struct.pack("<q", granule) + data[offset + 14 : page.end]
        )
        offset = page.end
    return pages


#: Format of tests.signals -> word before the audio's size, bytes between them, struct format.
SIZE_FIELDS = {
    **dict.fromkeys(("wav", "wav24", "wavex", "wav_float"), (b"data", 0, "<I")),
    "rf64": (b"ds64", 12, "<Q"),
    "w64": (b"data\xf3\xac\xd3\x11", 8, "<Q"),
    **dict.fromkeys(("aiff", "aiff_float"), (b"SSND", 0, ">I")),
    "au": (b".snd", 4, ">I"),
    "caf": (b"data", 0, ">Q"),
}


def with_size(data: bytes, format: str, size: int) -> bytes:
    """Return a file whose header gives `size` as the size of the audio."""
    word, gap_bytes, layout = SIZE_FIELDS[format]
    offset = data.index(word) + len(word) + gap_bytes
    return data[:offset] + struct.pack(layout, size) + data[offset + struct.calcsize(layout) :]


def size_of(data: bytes, format: str) -> int:
    word, gap_bytes, layout = SIZE_FIELDS[format]
    return struct.unpack_from(layout, data, data.index(word) + len(word) + gap_bytes)[0]


def with_envelope_grown(data: bytes, format: str, extra: int) -> bytes:
    """Return a file whose outermost size field counts `extra` bytes too many."""
    if format == "voc":  # the size of the last block, without the file's end byte
        data = data.rstrip(b"\0") if data.endswith(b"\0") else data
        offset = struct.unpack_from("<H", data, 20)[0] + 1
        size = len(data) - offset - 3 + extra
        return data[:offset] + struct.pack("<I", size)[:3] + data[offset + 3 :]
    offset, layout = {"avi": (4, "<I"), "8svx": (4, ">I")}.get(format, (0, "<Q"))
    if format == "wma":
        offset = struct.unpack_from("<Q", data, 16)[0] + 16
        size = len(data) - offset + 16 + extra
    else:
        size = len(data) - 8 + extra
    return data[:offset] + struct.pack(layout, size) + data[offset + struct.calcsize(layout) :]


def with_xing(data: bytes, frames: int | None = None, size: int | None = None) -> bytes:
    """Return an MP3 whose tag gives another number of frames or bytes."""
    offset = mpeg.parse_frame(data).tag_offset
    counts = struct.unpack_from(">II", data, offset + 8)
    counts = frames if frames is not None else counts[0], size if size is not None else counts[1]
    return data[: offset + 8] + struct.pack(">II", *counts) + data[offset + 16 :]


def pages_of(data: bytes) -> list[bytes]:
    """Return the pages of an Ogg file."""
    pages, offset = [], 0
    while page := ogg.parse_page(data, offset, 0):
        pages.append(data[offset : page.end])
        offset = page.end
    return pages


def with_numbers_moved(data: bytes, shift: int) -> bytes:
    """Return the Ogg file of a late listener: the headers, then pages with later numbers."""
    pages, audio_pages = pages_of(data)[:2], pages_of(data)[2:]
    for page in audio_pages:
        number = struct.unpack_from("<I", page, 18)[0] + shift
        pages.append(sign_page(page[:18] + struct.pack("<I", number) + page[22:]))
    return b"".join(pages)


def without_end(data: bytes) -> bytes:
    """Return an Ogg file whose last page is not marked as the last page."""
    page = last_page(data)
    signed = sign_page(data[page.start : page.start + 5] + b"\0" + data[page.start + 6 : page.end])
    return data[: page.start] + signed + data[page.end :]


def last_page(data: bytes) -> ogg.Page:
    offset, last = 0, None
    while page := ogg.parse_page(data, offset, 0):
        offset, last = page.end, page
    return last


def without_page(data: bytes, number: int) -> bytes:
    """Return an Ogg file that lacks the page with this number."""
    offset = 0
    for _ in range(number):
        offset = ogg.parse_page(data, offset, 0).end
    return data[:offset] + data[ogg.parse_page(data, offset, 0).end :]
