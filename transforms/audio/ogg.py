"""Ogg pages: whether a stream is complete, and whether another one follows it.

A chained stream is several files one after the other, as Internet radio sends them.
libsndfile decodes the first and says nothing of the others.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from transforms.errors import Cause, RecordingError, Stage
from transforms.storage.stored_file import StoredFile

_MAGIC = b"OggS\0"
_HEAD_BYTES = 27
_MAX_PAGE_BYTES = _HEAD_BYTES + 255 + 255 * 255
#: Where the last page is looked for: an ordinary one first, then the largest possible,
#: with as much of something else behind it.
_TAILS_BYTES = (1 << 14, 2 * _MAX_PAGE_BYTES)
_BEGINS, _ENDS = 2, 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
#: Streams side by side (a film's picture and sound) that are looked at.
_MAX_STREAMS = 64


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


def check_pages(file: StoredFile, start: int) -> tuple[str, int | None]:
    """Look at the first and the last pages of a file.

    Returns
    -------
    (irregularity, frames)
        Why libsndfile would not decode all of it, ``""`` if it would; and for a chained
        stream the frames of all its parts together.

    Raises
    ------
    RecordingError
        ``truncated``: the last page is cut, or is not marked as its stream's last.
    """
    firsts = list(_first_pages(file, start))
    last = last_page(file)
    if not firsts or last is None:
        return "an Ogg stream without whole pages", None
    _require_end(last, file.size_bytes)
    if len(firsts) > 1:
        return "several Ogg streams side by side", None
    if last.serial != firsts[0].serial:
        return "a chained Ogg stream", _count_frames(file, start)
    return "", None


def _require_end(last: Page, size_bytes: int) -> None:
    if last.end > size_bytes:
        message = f"the last Ogg page ends at byte {last.end}, the file at byte {size_bytes}"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    if not last.flags & _ENDS:
        message = "the last Ogg page is not marked as the end of its stream"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)


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
    for tail_bytes in _TAILS_BYTES:
        pages = tail_pages(file, tail_bytes)
        if pages and pages[-1].flags & _ENDS:
            break
    return pages[-1] if pages else None


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
        page = parse_page(data, at, origin)
        if page is None:
            break
        if is_page := page.end - origin > len(data) or _is_intact(data[at : page.end - origin]):
            pages.append(page)
        at = data.find(_MAGIC, page.end - origin if is_page else at + 1)
    return pages


def _is_intact(page: bytes) -> bool:
    """Check a page's CRC-32, which runs over the bits in the other order than zlib's."""
    (claimed,) = struct.unpack_from("<I", page, 22)
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    checksum = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return bool(int(f"{checksum:032b}"[::-1], 2) == claimed)


def _first_pages(file: StoredFile, at: int) -> Iterator[Page]:
    for _ in range(_MAX_STREAMS):
        page = read_page(file, at)
        if page is None or not page.flags & _BEGINS:
            return
        yield page
        at = page.end


def _count_frames(file: StoredFile, at: int) -> int:
    """Add up the parts of a chained stream."""
    ends: dict[int, int] = {}
    skipped = 0
    while page := read_page(file, at):
        if page.flags & _BEGINS:
            skipped += _pre_skip(file.read_at(page.body, 12))
        ends[page.serial] = max(page.granule, ends.get(page.serial, 0))
        at = page.end
    return sum(ends.values()) - skipped


def _pre_skip(packet: bytes) -> int:
    """Frames that Opus counts and does not play."""
    return struct.unpack_from("<H", packet, 10)[0] if packet.startswith(b"OpusHead") else 0
