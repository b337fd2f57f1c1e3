"""Tests that reading the headers of hostile files takes time in proportion, and little memory.

The work is counted, not timed: how often Python calls a function, and how many bytes it reads.
"""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from melmill.transforms.decode import mpeg, ogg
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.read_ahead import SMALLEST_BYTES, ReadAheadFile
from melmill.transforms.store.stored_file import StoredFile
from tests import damage
from tests.recordings import RATE
from tests.signals import encode, noise, song

ID3V1 = b"TAG" + bytes(125)
APE = bytes(20_000) + b"APETAGEX" + struct.pack("<IIII8x", 2000, 20_032, 1, 0)

#: Bytes like frame headers, but without frames after them: all ones, and other kinds.
LIKE_FRAMES = (b"\xff", b"\xff\xfb", b"\xff\xfb\x90\x64", b"\xff\xe0\xff\xff\xff")
#: More than the audio around the junk, and too much for work that grows with its square.
JUNK_BYTES = 200_000


class CountedFile(io.BytesIO):
    """A file in memory that counts the bytes that are read from it."""

    read_bytes = 0

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        self.read_bytes += count
        return count


def work(read: Callable[[StoredFile], object], *parts: bytes) -> tuple[int, int]:
    """Return the number of calls of functions that `read` makes, and of bytes that it reads."""
    calls = 0

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    raw = CountedFile(b"".join(parts))
    with StoredFile(raw) as file:
        sys.setprofile(count)
        try:
            read(file)
        finally:
            sys.setprofile(None)
    return calls, raw.read_bytes


def assert_in_proportion(read: Callable[[StoredFile], object], before, junk, behind) -> None:
    """Assert that twice as much junk takes about twice the work, not four times."""
    once = work(read, before, junk, behind)
    twice = work(read, before, junk * 2, behind)
    for few, many in zip(once, twice, strict=True):
        assert many < 2.2 * few
    assert twice[1] < 5 * len(junk)


@contextmanager
def opened(tmp_path: Path, *parts: bytes | int):
    """Open a file made of parts; a number stands for a hole of that many bytes."""
    with (tmp_path / "recording").open("wb") as out:
        for part in parts:
            if isinstance(part, int):
                out.seek(part, 1)
            else:
                out.write(part)
    with StoredObject(str(tmp_path / "recording")).open() as file:
        yield file


@pytest.mark.parametrize(
    ("name", "behind", "requests"),
    [
        ("wav", b"", 1),
        ("wav", b"LIST" + struct.pack("<I", 26) + bytes(26), 2),
        ("aiff", b"", 1),
        *((name, tail, 2) for name in ("flac", "mp3") for tail in (b"", ID3V1, APE + ID3V1)),
    ],
)
def test_a_header_of_a_remote_file_takes_few_requests(name, behind, requests):
    data = encode(noise(30, RATE), RATE, name) + behind
    ranges = []

    def read(start: int, stop: int) -> bytes:
        ranges.append((start, stop))
        return data[start:stop]

    remote = ReadAheadFile(read, len(data), SMALLEST_BYTES)
    assert len(data) > SMALLEST_BYTES
    header = examine_header(StoredFile(remote))
    assert (header.irregularity, header.missing, header.mended) == ("", "", "")
    assert len(ranges) == requests, ranges


def test_a_walk_through_a_remote_mp3_reads_on_and_on():
    data = damage.strip_xing(encode(noise(30, RATE), RATE, "mp3"))
    data = data * (10_000_000 // len(data))
    ranges = []

    def read(start: int, stop: int) -> bytes:
        ranges.append((start, stop))
        return data[start:stop]

    remote = ReadAheadFile(read, len(data), len(data))
    header = examine_header(StoredFile(remote))
    assert header.irregularity == "an MP3 without a Xing or Info tag"
    assert not header.pieces
    assert sum(stop - start for start, stop in ranges) < 1.1 * len(data)
    assert len(ranges) <= 10


def untagged() -> bytes:
    return damage.strip_xing(encode(song(2, RATE), RATE, "mp3"))


@pytest.mark.parametrize("chunk", [b"LIST\0\0\0\0", b"LIST\4\0\0\0LIST", b"LISTLIST"])
def test_many_chunks_behind_audio_of_unknown_length(chunk):
    wav = damage.with_size(encode(song(0.1, RATE), RATE, "wav"), "wav", 0)

    def read(file):
        assert examine_header(file).container == "wav"

    assert_in_proportion(read, wav, chunk * 16_000, b"xyz")


@pytest.mark.parametrize("filled", LIKE_FRAMES)
@pytest.mark.parametrize("behind", [b"", b"x"])
def test_bytes_like_frames_between_frames(filled, behind):
    def read(file):
        assert mpeg.walk(file, 0).end == file.size_bytes

    assert_in_proportion(
        read, untagged(), filled * (JUNK_BYTES // len(filled)) + behind, behind + untagged()
    )


@pytest.mark.parametrize("size", [1 << 20, 200 << 20])
def test_a_large_tag_between_frames_is_not_held_in_memory(tmp_path, size):
    tag = b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    tracemalloc.start()
    with opened(tmp_path, untagged(), tag, size, untagged()) as file:
        before = tracemalloc.get_traced_memory()[0]
        walk = mpeg.walk(file, 0)
        assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    tracemalloc.stop()
    assert walk.hole is None
    assert walk.samples == 2 * 78 * 1152


@pytest.mark.parametrize("word", [b"OggS\0", b"OggS\0\0" + b"\xff" * 21])
def test_words_like_pages_between_pages(word):
    parts = [encode(noise(1, 48000), 48000, "opus") for _ in range(2)]

    def read(file):
        assert ogg.first_damage(file, 0) is None

    assert_in_proportion(read, parts[0] + b"x", word * (JUNK_BYTES // len(word)), parts[1])
