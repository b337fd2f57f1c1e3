"""Tags of all kinds and sizes are found before, after and between the audio frames."""

from __future__ import annotations

import io
import struct

import pytest

from melmill.transforms.decode.tag_ranges import audio_end, is_tag_before, skip_id3v2, skip_tag
from melmill.transforms.store.stored_file import StoredFile

ID3V1 = b"TAG" + bytes(125)


def stored(data: bytes) -> StoredFile:
    return StoredFile(io.BytesIO(data))


def id3v2(size: int, flags: int = 0) -> bytes:
    """Return a tag of 10 + `size` bytes. With the flag 0x10, a footer of 10 bytes follows."""
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    footer = b"3DI\4\0" + bytes([flags]) + digits if flags & 0x10 else b""
    return b"ID3\4\0" + bytes([flags]) + digits + b"\1" * size + footer


def ape(size: int, flags: int = 0) -> bytes:
    """Return the header or the footer of a tag that declares `size` bytes."""
    return b"APETAGEX" + struct.pack("<IIII8x", 2000, size, 3, flags)


HAS_HEADER, NO_FOOTER, IS_HEADER = 1 << 31, 1 << 30, 1 << 29


@pytest.mark.parametrize("before", [b"", b"four"])
@pytest.mark.parametrize(
    ("tags", "size"),
    [
        (b"", 0),
        (id3v2(0), 10),
        (id3v2(3), 13),
        (id3v2(127), 137),
        (id3v2(128), 138),
        (id3v2(20_000), 20_010),
        (id3v2((1 << 21) + 5), (1 << 21) + 15),
        (id3v2(5, 0x10), 25),
        (id3v2(5, 0xEF), 15),
        (id3v2(3) + id3v2(4, 0x10), 37),
        (id3v2(1) * 16, 176),
        (id3v2(1) * 17, 176),
        (b"ID3\4\0\0\0\0\0", 0),
    ],
)
def test_id3v2_tags_are_skipped(before: bytes, tags: bytes, size: int) -> None:
    data = before + tags
    assert skip_id3v2(stored(data + b"x" * (size > 0) * 20), len(before)) == len(before) + size
    if not before:
        assert skip_id3v2(stored(data)) == size


def test_the_top_bit_of_a_tags_size_does_not_count() -> None:
    assert skip_id3v2(stored(b"ID3\4\0\0\x80\x81\x82\x83" + bytes(99))) == 10 + 16384 + 256 + 3


LYRICS = b"LYRICSBEGIN" + bytes(10) + b"000021LYRICS200"


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        (ID3V1, 128),
        (b"TAG" + bytes(124), 0),
        (bytes(60) + ape(92), 92),
        (ape(92, HAS_HEADER | IS_HEADER) + bytes(60) + ape(92, HAS_HEADER), 124),
        (bytes(60) + ape(0xFFFFFFFF), 0),
        (bytes(60) + ape(92, NO_FOOTER), 92),
        (id3v2(60, 0x10), 80),
        (id3v2(200, 0x10), 220),
        (LYRICS, 36),
        (bytes(21) + b"00002xLYRICS200", 0),
        (bytes(21) + b"000021LYRICS20", 0),
        (LYRICS + ID3V1, 164),
        (bytes(60) + ape(92) + id3v2(60, 0x10) + LYRICS + ID3V1, 92 + 80 + 36 + 128),
        (ID3V1 * 16, 16 * 128),
        (ID3V1 * 17, 16 * 128),
    ],
)
@pytest.mark.parametrize("audio", [b"x" * 500, b"x" * 70_000], ids=len)
def test_tags_after_the_audio_are_found(tags: bytes, size: int, audio: bytes) -> None:
    file = stored(audio + tags)
    assert audio_end(file, 400) == len(audio) + len(tags) - size


@pytest.mark.parametrize(("start", "counts"), [(100, True), (101, False), (0, True)])
def test_a_tag_that_would_begin_before_the_audio_does_not_count(start: int, counts: bool) -> None:
    data = b"x" * 100 + ID3V1
    assert audio_end(stored(data), start) == (100 if counts else 228)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (ID3V1, 0),
        (ID3V1[1:], 127),
        (ape(32), 0),
        (ape(32)[1:], 31),
        (b"3DI\4\0\0\0\0\0\0", 10),
        (id3v2(0, 0x10), 0),
        (b"DI\4\0\0\0\0\0\0", 9),
        (b"000000LYRICS200", 0),
        (b"00000LYRICS200", 14),
    ],
)
def test_a_file_may_hold_only_a_tag_or_a_part_of_a_tag(data: bytes, end: int) -> None:
    assert audio_end(stored(data), 0) == end


@pytest.mark.parametrize(
    ("between", "is_tag"),
    [
        (ID3V1, True),
        (b"x" * 68 + ape(100), True),
        (id3v2(100), True),
        (b"x" * 30 + id3v2(100), True),
        (b"x" * 30 + id3v2(100)[:-1], False),
        (b"ID3" + id3v2(100), True),
        (id3v2(100) + b"x", False),
        (b"x" * 100, False),
        (b"", False),
    ],
)
def test_a_tag_before_a_frame_is_recognised(between: bytes, is_tag: bool) -> None:
    data = b"x" * 300 + between + b"y" * 300
    assert is_tag_before(stored(data), 300, 300 + len(between)) is is_tag


def test_an_id3v2_tag_begins_within_the_searched_range() -> None:
    data = b"x" * 300 + id3v2(100) + b"y"
    assert not is_tag_before(stored(data), 301, 410)
    far = b"x" * ((1 << 20) - 3) + id3v2(100)
    assert is_tag_before(stored(far), 0, len(far))
    assert not is_tag_before(stored(b"x" + far), 0, len(far) + 1)


@pytest.mark.parametrize("before", [b"", b"four"])
@pytest.mark.parametrize(
    ("tag", "size"),
    [
        (ID3V1, 128),
        (ape(92, IS_HEADER | HAS_HEADER) + bytes(60) + ape(92, HAS_HEADER), 124),
        (ape(92, HAS_HEADER) + bytes(300), 32),
        (ape(92, IS_HEADER)[:31], 0),
        (ape(0xFFFFFFFF, IS_HEADER), 32 + 0xFFFFFFFF),
        (id3v2(100), 110),
        (id3v2(5) + id3v2(6), 31),
        (b"x" * 200, 0),
        (b"", 0),
    ],
)
def test_a_tag_between_frames_is_skipped(before: bytes, tag: bytes, size: int) -> None:
    assert skip_tag(stored(before + tag), len(before)) == len(before) + size
