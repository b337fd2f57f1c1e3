"""The headers of FLAC frames are parsed, and the last frame gives the length of the stream."""

from __future__ import annotations

import io
import struct

import pytest

from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.flac import Frame, parse_frame
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.stored_file import StoredFile


def read(data: bytes) -> Header:
    return examine_header(StoredFile(io.BytesIO(data)))


def with_checksum(head: bytes) -> bytes:
    """Return a frame header with its checksum, computed bit by bit as in the specification."""
    value = 0
    for byte in head:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return head + bytes([value])


def utf8(number: int) -> bytes:
    """Return a number of up to 36 bits in the shortest form of extended UTF-8."""
    if number < 0x80:
        return bytes([number])
    extra = next(n for n in range(1, 7) if number < 1 << (6 * n + max(0, 6 - n)))
    continuation = [0x80 | number >> 6 * i & 0x3F for i in reversed(range(extra))]
    return bytes([(0xFF00 >> (extra + 1)) & 0xFF | number >> 6 * extra, *continuation])


def frame(number: int, samples: int = 4096, *, variable: bool = False, body: int = 90) -> bytes:
    head = bytes([0xFF, 0xF9 if variable else 0xF8, 0x79, 0x18]) + utf8(number)
    return with_checksum(head + struct.pack(">H", samples - 1)) + b"\1" * body


def flac(frames: bytes, total: int, largest: int = 0, rate: int = 44_100) -> bytes:
    """Return a FLAC file with two channels and 16 bits."""
    packed = struct.pack(">Q", rate << 44 | 1 << 41 | 15 << 36 | total)
    info = struct.pack(">HH3s3s", 16, 65_535, b"", largest.to_bytes(3, "big")) + packed + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + frames


BLOCKS = {
    **{1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608},
    **{code: 256 << code - 8 for code in range(8, 16)},
}


@pytest.mark.parametrize("code", BLOCKS)
@pytest.mark.parametrize("variable", [False, True])
def test_a_code_gives_the_number_of_samples_in_a_frame(code: int, variable: bool) -> None:
    head = with_checksum(bytes([0xFF, 0xF8 | variable, code << 4 | 9, 0x18, 5]))
    assert parse_frame(head + b"rest") == Frame(variable, 5, BLOCKS[code])
    assert parse_frame(head) == Frame(variable, 5, BLOCKS[code])
    assert parse_frame(head[:-1]) is None


@pytest.mark.parametrize(
    ("codes", "rest", "samples"),
    [
        (0x60, b"\x0f", 16),
        (0x60, b"\xff", 256),
        (0x70, b"\x12\x33", 0x1234),
        (0x70, b"\xff\xff", 65_536),
        (0xC0, b"", 4096),
        (0xCC, b"\x2c", 4096),
        (0xCD, b"\xac\x44", 4096),
        (0xCE, b"\x11\x3a", 4096),
        (0x7D, b"\x12\x33\xac\x44", 0x1234),
        (0x6C, b"\x0f\x2c", 16),
    ],
)
def test_the_block_size_and_the_rate_may_follow_the_frame_number(
    codes: int, rest: bytes, samples: int
) -> None:
    head = with_checksum(bytes([0xFF, 0xF8, codes, 0xA0, 0]) + rest)
    assert parse_frame(head) == Frame(False, 0, samples)


@pytest.mark.parametrize(
    "number",
    [
        *(0, 1, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x1FFFFF, 0x200000),
        *(0x3FFFFFF, 0x4000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFFF, 0x123456789),
    ],
)
def test_numbers_of_up_to_36_bits_are_read(number: int) -> None:
    assert parse_frame(with_checksum(b"\xff\xf9\xc9\x18" + utf8(number))) == Frame(
        True, number, 4096
    )


@pytest.mark.parametrize(
    "head",
    [
        "fef8c91800",  # no sync code
        "fffac91800",  # a reserved bit after the sync code
        "fff0c91800",
        "fff8091800",  # a reserved size
        "fff8cf1800",  # an invalid rate
        "fff8c9b800",  # a reserved assignment of channels
        "fff8c91900",  # a reserved bit
        "fff8c91880",  # this number and the next ones are not valid UTF-8
        "fff8c918c200",
        "fff8c918c2c0",
        "fff8c918e28080"[:12],
        "fff8c918ff80808080808080",
        "fff8c918bf",
    ],
)
def test_bytes_that_are_not_a_frame_are_refused(head: str) -> None:
    assert parse_frame(with_checksum(bytes.fromhex(head))) is None


def test_a_frame_with_a_wrong_checksum_is_refused() -> None:
    head = with_checksum(bytes.fromhex("fff8c91800"))
    assert parse_frame(head) == Frame(False, 0, 4096)
    assert parse_frame(head[:-1] + bytes([head[-1] ^ 1])) is None


def test_eleven_of_sixteen_channel_assignments_are_valid() -> None:
    parsed = [parse_frame(with_checksum(bytes([0xFF, 0xF8, 0xC9, n << 4, 0]))) for n in range(16)]
    assert [parsed_frame is not None for parsed_frame in parsed] == [True] * 11 + [False] * 5


FIXED = b"".join(frame(number) for number in range(4)) + frame(4, 100)
COUNTED = 4 * 4096 + 100
VARIABLE = b"".join(
    frame(at, samples, variable=True) for at, samples in [(0, 4096), (4096, 700), (4796, 16)]
)


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        (flac(FIXED, COUNTED), 44_100),
        (flac(FIXED, COUNTED, rate=655_350), 655_350),
        (flac(FIXED, COUNTED, largest=100), 44_100),
        (flac(FIXED + b"TAG" + bytes(125), COUNTED, largest=100), 44_100),
        (flac(VARIABLE, 4812), 44_100),
        (flac(b"", COUNTED), 44_100),
        (flac(frame(0, 7), 7), 44_100),
        # The part that is read holds only this frame, whose number is not 0.
        (flac(frame(7), 99), 44_100),
        (flac(frame(4096, variable=True), 99), 44_100),
    ],
)
@pytest.mark.parametrize("before", [b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)])
def test_a_length_that_the_frames_confirm_is_regular(data: bytes, rate: int, before: bytes) -> None:
    assert read(before + data) == Header("flac", rate, 2)


@pytest.mark.parametrize("channels", range(1, 9))
def test_a_flac_may_have_eight_channels(channels: int) -> None:
    data = bytearray(flac(FIXED, COUNTED))
    data[20] = data[20] & 0xF1 | channels - 1 << 1
    assert read(bytes(data)) == Header("flac", 44_100, channels)


@pytest.mark.parametrize("frames", [FIXED, FIXED[: 4 * len(frame(0))] + frame(4, 100, body=0)])
def test_a_length_that_the_frames_exceed_is_irregular(frames: bytes) -> None:
    irregularity = f"a FLAC header that counts 5000 frames, but the file has {COUNTED}"
    assert read(flac(frames, 5000)) == Header("flac", 44_100, 2, irregularity=irregularity)


def test_the_length_is_found_before_tags_and_from_a_single_frame() -> None:
    largest = len(frame(0))
    assert read(flac(FIXED + b"TAG" + bytes(125), 5000, largest)).irregularity
    assert read(flac(frame(0, 7), 9)).frames == 9


def test_a_length_that_the_frames_do_not_reach_is_missing() -> None:
    missing = "the header counts 4813 frames, but the file ends at frame 4812"
    assert read(flac(VARIABLE, 4813)) == Header(
        *("flac", 44_100, 2),
        irregularity="a FLAC header that counts 4813 frames, but the file has 4812",
        frames=4813,
        missing=missing,
    )
    large = (1 << 36) - 1
    assert read(flac(FIXED, large)).frames == large


def test_a_flac_of_unknown_length_is_irregular() -> None:
    irregularity = "a FLAC stream that does not say its length"
    assert read(flac(FIXED, 0)) == Header("flac", 44_100, 2, irregularity=irregularity)


@pytest.mark.parametrize(
    ("stray", "believed"),
    [
        (frame(900, 4096), False),
        (frame(123_456, 4096, variable=True), False),
        (frame(5, 4096), True),
    ],
)
def test_noise_like_a_frame_does_not_count(stray: bytes, believed: bool) -> None:
    """A frame counts only if the frame before it counts and has the previous number."""
    frames = b"".join(frame(number) for number in range(5))
    header = read(flac(frames + stray, 5 * 4096))
    assert bool(header.irregularity) == believed


@pytest.mark.parametrize(("following_bytes", "counts"), [(10, True), (11, False)])
def test_a_last_frame_is_no_longer_than_the_largest(following_bytes: int, counts: bool) -> None:
    """If more bytes follow the last frame, they belong to another stream, which does not count."""
    data = FIXED + b"\1" * following_bytes
    largest = len(frame(0)) + 10
    assert bool(read(flac(data, 5, largest)).irregularity) == counts


@pytest.mark.parametrize(
    ("largest", "tail_bytes"), [(1000, 1 << 14), (10_000, 20_064), (200_000, 1 << 18)]
)
def test_a_few_of_the_largest_frames_are_read(largest: int, tail_bytes: int) -> None:
    last = frame(1, 10)
    both_frames = len(frame(0)) + len(last)
    for body, is_found in [
        (tail_bytes - both_frames + 90, True),
        (tail_bytes - both_frames + 91, False),
    ]:
        data = flac(b"\1" * 300_000 + frame(0, body=body) + last, 99, largest)
        assert bool(read(data).irregularity) == is_found
