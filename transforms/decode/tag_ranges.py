"""Positions of tags before, within and after the audio of a file: ID3, APEv2, Lyrics3."""

from __future__ import annotations

import re
import struct

from melmill.transforms.store.stored_file import StoredFile

#: Maximum number of tags that are skipped before or after the audio; real files have one or two.
_MAX_TAGS = 16
#: Bytes at the end of a file that are read in one request.
_TAIL_BYTES = 1 << 16
#: Maximum number of bytes that are searched for the start of an ID3v2 tag.
_SEARCHED_BYTES = 1 << 20


def skip_id3v2(file: StoredFile, at: int = 0) -> int:
    """Return the first byte after the ID3v2 tags that begin at byte `at`."""
    for _ in range(_MAX_TAGS):
        head = file.read_at(at, 10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            break
        at += 10 + _syncsafe(head[6:]) + (10 if head[5] & 0x10 else 0)
    return at


def _syncsafe(size: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))


def audio_end(file: StoredFile, start: int) -> int:
    """Return the first byte of the tags at the end of a file: ID3v1, ID3v2.4, APEv2, Lyrics3.

    A tag's size may be wrong: a tag that would begin before the audio, at byte `start`, does
    not count.
    """
    end = file.size_bytes
    # Read the tail in one request; otherwise each step backward is a request to a remote store.
    file.read_at(max(start, end - _TAIL_BYTES), _TAIL_BYTES)
    for _ in range(_MAX_TAGS):
        size = _tag_before(file, end)
        if size == 0 or end - size < start:
            break
        end -= size
    return end


def _tag_before(file: StoredFile, end: int) -> int:
    """Return the size of the tag that ends at byte `end`; 0 if no tag ends there."""
    if end >= 128 and file.read_at(end - 128, 3) == b"TAG":
        return 128
    foot = file.read_at(max(0, end - 32), min(32, end))
    if len(foot) == 32 and foot.startswith(b"APETAGEX"):
        size, _, flags = struct.unpack_from("<III", foot, 12)
        return int(size) + (32 if flags >> 31 else 0)
    if foot[-10:].startswith(b"3DI") and len(foot) >= 10:
        return 20 + _syncsafe(foot[-4:])
    if foot.endswith(b"LYRICS200") and foot[-15:-9].isdigit():
        return int(foot[-15:-9]) + 15
    return 0


def is_tag_before(file: StoredFile, start: int, end: int) -> bool:
    """Return whether a tag ends at byte `end`; an ID3v2 tag must begin at or after `start`."""
    if _tag_before(file, end):
        return True
    data = file.read_at(start, min(end - start, _SEARCHED_BYTES))
    return any(skip_id3v2(file, start + name.start()) == end for name in re.finditer(b"ID3", data))


def skip_tag(file: StoredFile, at: int) -> int:
    """Return the end of the tag that begins at byte `at`; `at` itself if no tag begins there."""
    head = file.read_at(at, 32)
    if head.startswith(b"TAG"):
        return at + 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        size, _, flags = struct.unpack_from("<III", head, 12)
        # The size counts the footer and not the header.
        return at + 32 + (int(size) if flags & 1 << 29 else 0)
    return skip_id3v2(file, at)
