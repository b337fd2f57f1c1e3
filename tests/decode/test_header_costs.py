"""Tests that reading the headers of hostile files takes only seconds and little memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator
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


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds


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
def test_many_chunks_behind_audio_of_unknown_length(tmp_path, chunk):
    wav = damage.with_size(encode(song(0.1, RATE), RATE, "wav"), "wav", 0)
    with opened(tmp_path, wav, chunk * 16_000, b"xyz") as file, at_most(2):
        assert examine_header(file).container == "wav"


@pytest.mark.parametrize("filled", LIKE_FRAMES)
@pytest.mark.parametrize("behind", [b"", b"x"])
def test_bytes_like_frames_between_frames(tmp_path, filled, behind):
    junk = filled * (3_000_000 // len(filled)) + behind
    with opened(tmp_path, untagged(), junk, untagged()) as file, at_most(4):
        assert mpeg.walk(file, 0).end == file.size_bytes


@pytest.mark.parametrize("size", [1 << 20, 200 << 20])
def test_a_large_tag_between_frames_is_not_held_in_memory(tmp_path, size):
    tag = b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    tracemalloc.start()
    with opened(tmp_path, untagged(), tag, size, untagged()) as file, at_most(4):
        before = tracemalloc.get_traced_memory()[0]
        walk = mpeg.walk(file, 0)
        assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    tracemalloc.stop()
    assert walk.hole is None
    assert walk.samples == 2 * 78 * 1152


@pytest.mark.parametrize("word", [b"OggS\0", b"OggS\0\0" + b"\xff" * 21])
def test_words_like_pages_between_pages(tmp_path, word):
    parts = [encode(noise(1, 48000), 48000, "opus") for _ in range(2)]
    junk = word * (2_000_000 // len(word))
    with opened(tmp_path, parts[0], b"x" + junk, parts[1]) as file, at_most(20):
        assert ogg.first_damage(file, 0) is None
