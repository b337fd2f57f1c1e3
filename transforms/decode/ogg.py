"""Ogg pages: whether a stream is complete, and whether another one follows it.

A chained stream is several files one after the other, as Internet radio sends them.
libsndfile decodes the first and says nothing of the others.
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
#: The magic word, and flags that there are.
_FIRST_BYTES = re.compile(rb"OggS\0[\0-\7]")
_HEAD_BYTES = 27
_MAX_PAGE_BYTES = _HEAD_BYTES + 255 + 255 * 255
#: Where the last page is looked for: an ordinary one first, then the largest possible,
#: with as much of something else behind it.
_TAILS_BYTES = (1 << 14, 2 * _MAX_PAGE_BYTES)
_BEGINS, _ENDS = 2, 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
#: Streams side by side (a film's picture and sound) that are looked at.
_MAX_STREAMS = 64
#: Pages up to the first audio that are looked at; pictures among the tags take some.
_MAX_FIRST_PAGES = 256
#: A page that ends at a later position than this does not begin a stream at position 0.
_MOST_PAGE_FRAMES = 1 << 21
#: Frames of 2.5 ms in an Opus packet of each configuration.
_OPUS_QUARTERS = (4, 8, 16, 24) * 3 + (4, 8) * 2 + (1, 2, 4, 8) * 4


@dataclass(frozen=True, slots=True)
class Page:
    """The header of one page.

    Attributes
    ----------
    flags
        2 on a stream's first page, 4 on its last.
    granule
        The stream's position at the end of the page; -1 where no packet ends in it.
    start, body, end
        Byte positions of the page, of its content, and of what follows it.
    """

    flags: int
    granule: int
    serial: int
    start: int
    body: int
    end: int


def read_ogg(file: StoredFile, start: int, magic: bytes) -> Header:
    """Look at the first and the last pages of a file."""
    firsts = list(_first_pages(file, start))
    pages = _last_pages(file)
    if not firsts or not pages:
        return Header("ogg", irregularity="an Ogg stream without whole pages")
    end, missing = pages[-1].end, ""
    if end > file.size_bytes:
        missing = f"the last Ogg page ends at byte {end}, the file at byte {file.size_bytes}"
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
    """Look at the ends of a file of one stream."""
    audio = _first_audio_page(file, first)
    early = _opus_start(file, first, audio) if audio else 0
    header = Header(
        "ogg",
        irregularity=f"an Ogg stream that begins at position {early}" if early else "",
        promised=last.granule - _pre_skip(file.read_at(first.body, 12)),
        single_page=audio is not None and audio.start == last.start,
    )
    if last.flags & _ENDS:
        return header
    # Decoders leave out what lies behind the last position only where the end is marked.
    page = bytearray(file.read_at(last.start, last.end - last.start))
    page[5] |= _ENDS
    page[22:26] = struct.pack("<I", checksum(bytes(page)))
    mended = "an Ogg stream whose last page is not marked as its end"
    return replace(header, mended=mended, pieces=((0, last.start), bytes(page)))


def _first_audio_page(file: StoredFile, page: Page) -> Page | None:
    """Find the first page with a position beyond 0."""
    found: Page | None = page
    for _ in range(_MAX_FIRST_PAGES):
        if found is None or found.granule > 0:
            return found
        found = read_page(file, found.end)
    return None


def _opus_start(file: StoredFile, first: Page, page: Page) -> int:
    """Position of the first packet of an Opus stream's first audio page.

    A stream that was cut out of a longer one does not begin at 0. An encoder that ends
    within the page counts fewer frames than its packets hold.
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
    early = page.granule - frames
    return 0 if early < 0 and page.flags & _ENDS else early


def _opus_frames(packet: bytes) -> int:
    """Samples per channel, at 48 kHz, in an Opus packet."""
    if not packet:
        return 0
    code = packet[0] & 3
    count = (1, 2, 2, (packet[1] & 63) if len(packet) > 1 else 0)[code]
    return 120 * _OPUS_QUARTERS[packet[0] >> 3] * count


def first_damage(file: StoredFile, at: int) -> tuple[int, str] | None:
    """Find the first page that is damaged, or that does not follow the one before it.

    What lies between two pages is no damage, if no page is missing there.

    Returns
    -------
    (frames, message) or None
        Frames up to the end of the page before; ``None`` where all pages are sound.
    """
    numbers: dict[int, int] = {}
    count = _Count(file)
    while page := read_page(file, at) or _next_page(file, at):
        data = file.read_at(page.start, page.end - page.start)
        if len(data) < page.end - page.start or not is_intact(data):
            return count.frames, f"the Ogg page at byte {page.start} is damaged"
        (number,) = struct.unpack_from("<I", data, 18)
        # Who joins a live stream gets its headers first, and then the pages of that moment.
        follows = number == numbers.get(page.serial, number - 1) + 1 or count.begins_audio(page)
        if not (follows or page.flags & _BEGINS):
            return count.frames, f"Ogg pages are missing before byte {page.start}"
        numbers[page.serial] = number
        count.add(page)
        at = page.end
    return None


class _Count:
    """Frames up to a page, in streams that lie side by side or follow one another.

    Attributes
    ----------
    frames
        Of all pages that were added.
    """

    def __init__(self, file: StoredFile) -> None:
        self.frames = 0
        self._file = file
        self._before = 0  # in the streams that have ended
        self._begun: dict[int, Page] = {}  # first pages of streams without audio so far
        self._skipped: dict[int, int] = {}

    def begins_audio(self, page: Page) -> bool:
        """Tell whether a page is the first with a position behind a stream's headers."""
        return page.granule > 0 and page.serial in self._begun

    def add(self, page: Page) -> None:
        """Take in the next page."""
        if page.flags & _BEGINS:
            if self.frames > self._before:
                self._before, self._begun = self.frames, {}
            self._begun[page.serial] = page
            self._skipped[page.serial] = _pre_skip(self._file.read_at(page.body, 12))
        elif self.begins_audio(page):
            first = self._begun.pop(page.serial)
            self._skipped[page.serial] += _position_before(self._file, first, page)
        position = page.granule - self._skipped.get(page.serial, 0)
        self.frames = max(self.frames, self._before + position)


def _position_before(file: StoredFile, first: Page, page: Page) -> int:
    """Position at which a stream's first audio page begins, or less than a page behind it."""
    if page.granule > _MOST_PAGE_FRAMES:
        return _opus_start(file, first, page) or page.granule
    return max(0, _opus_start(file, first, page))


def _next_page(file: StoredFile, at: int) -> Page | None:
    """Find the next intact page behind something else."""
    while data := file.read_at(at, 2 * _MAX_PAGE_BYTES):
        for found in _FIRST_BYTES.finditer(data, 0, _MAX_PAGE_BYTES + len(_MAGIC)):
            page = parse_page(data, found.start(), at)
            if (
                page
                and page.end - at <= len(data)
                and is_intact(data[found.start() : page.end - at])
            ):
                return page
        at += min(len(data), _MAX_PAGE_BYTES)
    return None


def read_page(file: StoredFile, at: int) -> Page | None:
    """Read the header of the page at a byte; ``None`` if none is there."""
    head = file.read_at(at, _HEAD_BYTES)
    return parse_page(head + file.read_at(at + _HEAD_BYTES, 255), 0, at)


def parse_page(data: bytes, at: int, origin: int) -> Page | None:
    """Parse the page at ``data[at]``, where ``data[0]`` is the file's byte `origin`."""
    if len(data) < at + _HEAD_BYTES or data[at : at + 5] != _MAGIC:
        return None
    flags, granule, serial, segments = struct.unpack_from("<BqI8xB", data, at + 5)
    body = at + _HEAD_BYTES + segments
    end = body + sum(data[at + _HEAD_BYTES : body])
    return Page(flags, granule, serial, origin + at, origin + body, origin + end)


def last_page(file: StoredFile) -> Page | None:
    """Find the last page of a file: whole, or cut by the file's end."""
    pages = _last_pages(file)
    return pages[-1] if pages else None


def _last_pages(file: StoredFile) -> list[Page]:
    """Find the last pages of a file."""
    pages: list[Page] = []
    for tail_bytes in _TAILS_BYTES:
        pages = tail_pages(file, tail_bytes)
        if pages and pages[-1].flags & _ENDS and pages[-1].end <= file.size_bytes:
            break
    return pages


def tail_pages(file: StoredFile, tail_bytes: int) -> list[Page]:
    """Find the pages that begin in the last bytes of a file.

    Content may hold the magic word, so a page counts if its checksum holds, or if it is
    cut by the end of the file.
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
    """A page of which the file holds a part of the header only."""
    return Page(0, -1, 0, at, at + _HEAD_BYTES, at + _HEAD_BYTES)


def is_intact(page: bytes) -> bool:
    """Tell whether a page's checksum holds."""
    return bool(struct.unpack_from("<I", page, 22)[0] == checksum(page))


def checksum(page: bytes) -> int:
    """Compute a page's CRC-32, which runs over the bits in the other order than zlib's."""
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
    """Add up the parts of a chained stream, which may be of one serial number."""
    count = _Count(file)
    while page := read_page(file, at):
        count.add(page)
        at = page.end
    return count.frames


def _pre_skip(packet: bytes) -> int:
    """Frames that Opus counts and does not play."""
    return struct.unpack_from("<H", packet, 10)[0] if packet.startswith(b"OpusHead") else 0
