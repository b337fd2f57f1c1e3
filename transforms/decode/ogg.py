"""Ogg pages: checks whether a stream is complete, and whether another stream follows it.

A chained stream consists of several streams one after the other, as in Internet radio.
libsndfile decodes the first stream and ignores the others without an error.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from melmill.transforms.decode.claims import Header
from melmill.transforms.store.stored_file import StoredFile

_MAGIC = b"OggS\0"
#: The magic word, followed by valid flags.
_FIRST_BYTES = re.compile(rb"OggS\0[\0-\7]")
_HEAD_BYTES = 27
_MAX_PAGE_BYTES = _HEAD_BYTES + 255 + 255 * 255
#: Bytes at the end of the file that are searched for the last page: first enough for an ordinary
#: page, then enough for the largest page with the same amount of other data after it.
_TAILS_BYTES = (1 << 14, 2 * _MAX_PAGE_BYTES)
_BEGINS, _ENDS = 2, 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
#: Maximum number of parallel streams (such as a film's picture and sound) that are read.
_MAX_STREAMS = 64
#: Maximum number of pages that are read up to the first audio; pictures in tags need some.
_MAX_FIRST_PAGES = 256
#: Maximum number of frames in a page. If the first audio page ends at a later position, the stream
#: does not begin at position 0.
_MOST_PAGE_FRAMES = 1 << 21
#: Number of 2.5 ms frames in an Opus packet, for each configuration.
_OPUS_QUARTERS = (4, 8, 16, 24) * 3 + (4, 8) * 2 + (1, 2, 4, 8) * 4


@dataclass(frozen=True, slots=True)
class Page:
    """The header of one page.

    Attributes
    ----------
    flags
        Flags: 2 on the first page of a stream, 4 on the last page.
    granule
        Position in the stream at the end of the page; -1 if no packet ends in the page.
    serial
        Serial number of the stream.
    start, body, end
        Byte positions: start of the page, start of its content, and end of the page.
    """

    flags: int
    granule: int
    serial: int
    start: int
    body: int
    end: int


def read_ogg(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an Ogg file, from its first and last pages."""
    firsts = list(_first_pages(file, start))
    pages = _last_pages(file)
    if not firsts or not pages:
        return Header("ogg", irregularity="an Ogg stream without whole pages")
    end, missing = pages[-1].end, ""
    if end > file.size_bytes:
        missing = f"the last Ogg page ends at byte {end}, but the file at byte {file.size_bytes}"
    last = next((page for page in reversed(pages) if page.end <= file.size_bytes), None)
    if len(firsts) > 1 or last is None:
        irregularity = "several Ogg streams side by side" if last else "an Ogg stream that is cut"
        return Header("ogg", irregularity=irregularity, missing=missing)
    if last.serial != firsts[0].serial:
        frames = None if missing else count_frames(file, start)
        irregularity = "a chained Ogg stream"
        return Header("ogg", irregularity=irregularity, frames=frames, missing=missing)
    return replace(_check_stream(file, firsts[0], last), missing=missing)


def _check_stream(file: StoredFile, first: Page, last: Page) -> Header:
    """Return the header of a file with one stream."""
    audio = _first_audio_page(file, first)
    position = _opus_start(file, first, audio) if audio else 0
    header = Header(
        "ogg",
        irregularity=f"an Ogg stream that begins at position {position}" if position else "",
        promised=last.granule - _pre_skip(file.read_at(first.body, 12)),
        single_page=audio is not None and audio.start == last.start,
    )
    if last.flags & _ENDS:
        return header
    # Decoders cut samples after the last position only if the last page is marked as the end.
    page = bytearray(file.read_at(last.start, last.end - last.start))
    page[5] |= _ENDS
    page[22:26] = struct.pack("<I", checksum(bytes(page)))
    mended = "an Ogg stream whose last page is not marked as its end"
    return replace(header, mended=mended, pieces=((0, last.start), bytes(page)))


def _first_audio_page(file: StoredFile, page: Page) -> Page | None:
    """Return the first page with a position greater than 0; ``None`` if there is none."""
    current: Page | None = page
    for _ in range(_MAX_FIRST_PAGES):
        if current is None or current.granule > 0:
            return current
        current = read_page(file, current.end)
    return None


def _opus_start(file: StoredFile, first: Page, page: Page) -> int:
    """Return the position of the first packet in an Opus stream's first audio page.

    A stream that was cut out of a longer stream does not begin at 0. If the stream ends in
    this page, the encoder may count fewer frames than the packets contain.
    """
    if not file.read_at(first.body, 8).startswith(b"OpusHead"):
        return 0
    lacing = file.read_at(page.start + _HEAD_BYTES, page.body - page.start - _HEAD_BYTES)
    at, size, frames = page.body, 0, 0
    for segment in lacing:
        size += segment
        if segment < 255:
            frames += _opus_frames(file.read_at(at, min(size, 2)))
            at, size = at + size, 0
    position = page.granule - frames
    return 0 if position < 0 and page.flags & _ENDS else position


def _opus_frames(packet: bytes) -> int:
    """Return the number of samples per channel, at 48 kHz, in an Opus packet."""
    if not packet:
        return 0
    code = packet[0] & 3
    count = (1, 2, 2, (packet[1] & 63) if len(packet) > 1 else 0)[code]
    return 120 * _OPUS_QUARTERS[packet[0] >> 3] * count


def first_damage(file: StoredFile, at: int) -> tuple[int, str] | None:
    """Return the first damage: a corrupt page, or a page before which pages are missing.

    Other data between two pages is not a damage if no page is missing there.

    Returns
    -------
    (frames, message) or None
        Number of frames up to the end of the last intact page; ``None`` if all are intact.
    """
    numbers: dict[int, int] = {}
    count = _FrameCount(file)
    while page := read_page(file, at) or _next_page(file, at):
        data = file.read_at(page.start, page.end - page.start)
        if len(data) < page.end - page.start or not is_intact(data):
            return count.frames, f"the Ogg page at byte {page.start} is damaged"
        (number,) = struct.unpack_from("<I", data, 18)
        # A recording of a live stream has its headers first, then pages with later numbers.
        follows = number == numbers.get(page.serial, number - 1) + 1 or count.begins_audio(page)
        if not (follows or page.flags & _BEGINS):
            return count.frames, f"Ogg pages are missing before byte {page.start}"
        numbers[page.serial] = number
        count.add(page)
        at = page.end
    return None


class _FrameCount:
    """Counts the frames up to a page, for parallel and for chained streams.

    Attributes
    ----------
    frames
        Number of frames in all pages that were added.
    """

    def __init__(self, file: StoredFile) -> None:
        self.frames = 0
        self._file = file
        self._ended_frames = 0  # frames of the streams that have ended
        self._without_audio: dict[int, Page] = {}  # first pages of streams without audio so far
        self._skipped: dict[int, int] = {}

    def begins_audio(self, page: Page) -> bool:
        """Return whether a page is the first page with audio after a stream's headers."""
        return page.granule > 0 and page.serial in self._without_audio

    def add(self, page: Page) -> None:
        """Count the frames of the next page."""
        if page.flags & _BEGINS:
            if self.frames > self._ended_frames:
                self._ended_frames, self._without_audio = self.frames, {}
            self._without_audio[page.serial] = page
            self._skipped[page.serial] = _pre_skip(self._file.read_at(page.body, 12))
        elif self.begins_audio(page):
            first = self._without_audio.pop(page.serial)
            self._skipped[page.serial] += _start_position(self._file, first, page)
        position = page.granule - self._skipped.get(page.serial, 0)
        self.frames = max(self.frames, self._ended_frames + position)


def _start_position(file: StoredFile, first: Page, page: Page) -> int:
    """Return the position where a stream's first audio page begins, or up to a page later."""
    if page.granule > _MOST_PAGE_FRAMES:
        return _opus_start(file, first, page) or page.granule
    return max(0, _opus_start(file, first, page))


def _next_page(file: StoredFile, at: int) -> Page | None:
    """Return the next intact page after other data; ``None`` if there is none."""
    while data := file.read_at(at, 2 * _MAX_PAGE_BYTES):
        for match in _FIRST_BYTES.finditer(data, 0, _MAX_PAGE_BYTES + len(_MAGIC)):
            page = parse_page(data, match.start(), at)
            if (
                page
                and page.end - at <= len(data)
                and is_intact(data[match.start() : page.end - at])
            ):
                return page
        at += min(len(data), _MAX_PAGE_BYTES)
    return None


def read_page(file: StoredFile, at: int) -> Page | None:
    """Return the header of the page at byte `at`; ``None`` if no page begins there."""
    head = file.read_at(at, _HEAD_BYTES)
    return parse_page(head + file.read_at(at + _HEAD_BYTES, 255), 0, at)


def parse_page(data: bytes, at: int, origin: int) -> Page | None:
    """Return the header of the page at ``data[at]``; ``data[0]`` is the file's byte `origin`.

    ``None`` if no page begins there.
    """
    if len(data) < at + _HEAD_BYTES or data[at : at + 5] != _MAGIC:
        return None
    flags, granule, serial, segments = struct.unpack_from("<BqI8xB", data, at + 5)
    body = at + _HEAD_BYTES + segments
    end = body + sum(data[at + _HEAD_BYTES : body])
    return Page(flags, granule, serial, origin + at, origin + body, origin + end)


def last_page(file: StoredFile) -> Page | None:
    """Return the last page of a file, whole or truncated; ``None`` if there is none."""
    pages = _last_pages(file)
    return pages[-1] if pages else None


def _last_pages(file: StoredFile) -> list[Page]:
    """Return the last pages of a file."""
    pages: list[Page] = []
    for tail_bytes in _TAILS_BYTES:
        pages = tail_pages(file, tail_bytes)
        if pages and pages[-1].flags & _ENDS and pages[-1].end <= file.size_bytes:
            break
    return pages


def tail_pages(file: StoredFile, tail_bytes: int) -> list[Page]:
    """Return the pages that begin in the last `tail_bytes` bytes of a file.

    Audio data may contain the magic word. So a page counts only if its checksum is correct,
    or if it is truncated by the end of the file.
    """
    origin = max(0, file.size_bytes - tail_bytes)
    data = file.read_at(origin, tail_bytes)
    pages: list[Page] = []
    at = data.find(_MAGIC)
    while at >= 0:
        page = parse_page(data, at, origin) or _cut_page(origin + at)
        if is_page := page.end - origin > len(data) or is_intact(data[at : page.end - origin]):
            pages.append(page)
        at = data.find(_MAGIC, page.end - origin if is_page else at + 1)
    rest = data[pages[-1].end - origin :] if pages else b""
    if rest and _MAGIC.startswith(rest):
        pages.append(_cut_page(pages[-1].end))
    return pages


def _cut_page(at: int) -> Page:
    """Return a page for a truncated header at the end of the file."""
    return Page(0, -1, 0, at, at + _HEAD_BYTES, at + _HEAD_BYTES)


def is_intact(page: bytes) -> bool:
    """Return whether a page's checksum is correct."""
    return bool(struct.unpack_from("<I", page, 22)[0] == checksum(page))


def checksum(page: bytes) -> int:
    """Return a page's CRC-32, which reads the bits in the opposite order to zlib's CRC-32."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


def _first_pages(file: StoredFile, at: int) -> Iterator[Page]:
    for _ in range(_MAX_STREAMS):
        page = read_page(file, at)
        if page is None or not page.flags & _BEGINS:
            return
        yield page
        at = page.end


def count_frames(file: StoredFile, at: int) -> int:
    """Return the number of frames in all chained streams, even if they share a serial number."""
    count = _FrameCount(file)
    while page := read_page(file, at):
        count.add(page)
        at = page.end
    return count.frames


def _pre_skip(packet: bytes) -> int:
    """Return the number of frames at the start that Opus counts but does not play."""
    return struct.unpack_from("<H", packet, 10)[0] if packet.startswith(b"OpusHead") else 0
