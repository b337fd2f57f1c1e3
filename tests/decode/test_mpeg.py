"""MPEG frames are parsed and found in a file, together with tags and other data between them."""

from __future__ import annotations

import io
import struct

import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.mpeg import MpegFrame, Walk, parse_frame, walk
from melmill.transforms.store.stored_file import StoredFile

ID3V1 = b"TAG" + bytes(125)
#: A header: layer III, 44.1 kHz, stereo, 128 kbit/s, no checksum. The frame has 417 bytes.
HEAD = bytes.fromhex("fffb9064")
#: A header with 32 kbit/s. The frame has 104 bytes.
SMALL = bytes.fromhex("fffb1064")


def stored(data: bytes) -> StoredFile:
    return StoredFile(io.BytesIO(data))


def read(data: bytes) -> Header:
    return examine_header(stored(data))


def frame(reach: int = 0, head: bytes = HEAD) -> bytes:
    """Return a frame whose audio data begins `reach` bytes before the frame."""
    side = bytes([reach >> 1, (reach & 1) << 7])
    return (head + side).ljust(parse(head).size_bytes, b"\1")


def parse(head: bytes) -> MpegFrame:
    mpeg_frame = parse_frame(head)
    assert mpeg_frame is not None
    return mpeg_frame


def tagged(word: bytes, frames: int, size: int, flags: int = 3, head: bytes = HEAD) -> bytes:
    """Return a first frame with a Xing or Info tag after 32 bytes of side information."""
    tag = word + struct.pack(">III", flags, frames, size)
    return (head + bytes(32) + tag).ljust(parse(head).size_bytes, b"\0")


# Frames


@pytest.mark.parametrize(
    ("head", "expected", "samples", "tag_offset"),
    [
        # The first size is 144 · 128,000 / 44,100 = 417.96, rounded down. Padding adds 1 byte, and
        # 4 bytes in layer I.
        ("fffb9064", (True, 3, 44_100, 2, 417), 1152, 36),
        ("fffb9264", (True, 3, 44_100, 2, 418), 1152, 36),
        ("fffa9064", (True, 3, 44_100, 2, 417), 1152, 36),
        ("fffb90c4", (True, 3, 44_100, 1, 417), 1152, 21),
        ("fffb9084", (True, 3, 44_100, 2, 417), 1152, 36),
        ("fffb9464", (True, 3, 48_000, 2, 384), 1152, 36),
        ("fffb9864", (True, 3, 32_000, 2, 576), 1152, 36),
        ("fffb1064", (True, 3, 44_100, 2, 104), 1152, 36),
        ("fffbe064", (True, 3, 44_100, 2, 1044), 1152, 36),
        ("fffd9064", (True, 2, 44_100, 2, 522), 1152, 36),
        ("fffd9264", (True, 2, 44_100, 2, 523), 1152, 36),
        ("ffff9064", (True, 1, 44_100, 2, 312), 384, 36),
        ("ffff9264", (True, 1, 44_100, 2, 316), 384, 36),
        ("fff39064", (False, 3, 22_050, 2, 261), 576, 21),
        ("fff390c4", (False, 3, 22_050, 1, 261), 576, 13),
        ("fff59064", (False, 2, 22_050, 2, 522), 1152, 21),
        ("fff79064", (False, 1, 22_050, 2, 312), 384, 21),
        ("ffe39064", (False, 3, 11_025, 2, 522), 576, 21),
        ("ffe39464", (False, 3, 12_000, 2, 480), 576, 21),
        ("ffe390c4", (False, 3, 11_025, 1, 522), 576, 13),
    ],
)
def test_the_header_of_a_frame_is_parsed(
    head: str, expected: tuple[bool, int, int, int, int], samples: int, tag_offset: int
) -> None:
    mpeg_frame = parse(bytes.fromhex(head))
    assert mpeg_frame == MpegFrame(*expected)
    assert (mpeg_frame.samples, mpeg_frame.tag_offset) == (samples, tag_offset)
    assert mpeg_frame.kind == expected[:3]


@pytest.mark.parametrize(
    "head",
    ["fffb90", "fefb9064", "ffdb9064", "ffeb9064", "fff99064", "fffb0064", "fffbf064", "fffb9c64"],
)
def test_other_bytes_are_not_a_frame(head: str) -> None:
    assert parse_frame(bytes.fromhex(head)) is None


def test_the_first_and_the_last_bit_rate_are_right() -> None:
    """The rates are in kbit/s, from the table in the standard."""
    rates = {"ff": (32, 448), "fd": (32, 384), "fb": (32, 320), "f7": (32, 256), "f3": (8, 160)}
    for second, ends in rates.items():
        for code, kbits in zip("1e", ends, strict=True):
            mpeg_frame = parse(bytes.fromhex(f"ff{second}{code}064"))
            per_frame = mpeg_frame.samples / 8 * kbits * 1000 / mpeg_frame.sample_rate_hz
            assert per_frame - 4 < mpeg_frame.size_bytes <= per_frame


# The length in the first frame


def cbr(frames: int, claimed: int | None = None, size: int | None = None) -> bytes:
    """Return a stream with a constant bit rate. The size includes the frame of the tag."""
    total_bytes = (frames + 1) * 417
    tag_values = frames if claimed is None else claimed, total_bytes if size is None else size
    return tagged(b"Info", *tag_values) + frame() * frames


def test_a_length_that_agrees_with_the_file_is_regular() -> None:
    assert read(cbr(9)) == Header("mp3", 44_100, 2)
    assert read(cbr(9) + ID3V1) == Header("mp3", 44_100, 2)
    assert read(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + cbr(9)) == Header("mp3", 44_100, 2)


@pytest.mark.parametrize(
    ("size", "irregularity"),
    [
        (4170, ""),
        (4170 - 417, ""),  # The tag does not count its own frame.
        (4170 - 418, "an MP3 whose tag counts 3752 bytes, but the file has 4170"),
        (4171, "an MP3 whose tag counts 4171 bytes, but the file has 4170"),
        (4170 + 417, "an MP3 whose tag counts 4587 bytes, but the file has 4170"),
        (4170 + 418, "an MP3 that is cut"),
    ],
)
def test_the_length_is_compared_with_the_file(size: int, irregularity: str) -> None:
    header = read(cbr(9, size=size))
    assert header.irregularity == irregularity
    missing = "the MP3's tag counts 4588 bytes, but 418 of them are missing"
    assert header.missing == (missing if size == 4588 else "")
    assert (header.sample_rate_hz, header.channels, header.pieces) == (44_100, 2, ())


@pytest.mark.parametrize(("flags", "frames", "size"), [(1, 9, 4170), (2, 9, 4170), (0, 9, 4170)])
def test_a_tag_may_lack_a_length(flags: int, frames: int, size: int) -> None:
    data = tagged(b"Xing", frames, size, flags) + frame() * 9
    irregularity = "an MP3 whose tag does not give its length"
    assert read(data) == Header("mp3", 44_100, 2, irregularity=irregularity)
    for nothing in ((0, 4170), (9, 0)):
        assert read(tagged(b"Xing", *nothing) + frame() * 9).irregularity == irregularity
    assert read(tagged(b"Xing", frames, size, 15) + frame() * 9).irregularity == ""


def test_a_tag_may_claim_more_than_any_file_has() -> None:
    header = read(tagged(b"Xing", 9, 0xF0000000) + frame() * 9)
    missing_bytes = 0xF0000000 - 4170
    assert (
        header.missing
        == f"the MP3's tag counts 4026531840 bytes, but {missing_bytes} of them are missing"
    )
    other_header = read(tagged(b"Info", 0xF0000000, 4170) + frame() * 9)
    assert other_header.irregularity == "an MP3 whose tag counts 4026531840 frames in 4170 bytes"


def test_the_end_of_the_first_frame_may_look_like_a_tag() -> None:
    first = tagged(b"Xing", 9, 417)
    single_frame = first[:-128] + ID3V1
    assert read(single_frame) == Header("mp3", 44_100, 2)
    assert walk(stored(single_frame), 0).end == 417
    assert walk(stored(ID3V1), 0).end == 0


@pytest.mark.parametrize("word", [b"Xing", b"Info"])
def test_frames_of_one_size_are_counted(word: bytes) -> None:
    """If frames may have different sizes (Xing), only a decode shows a wrong number of frames."""
    for frames, regular in [(9, True), (12, True), (13, False), (8, True), (7, False)]:
        data = tagged(word, frames, 4170) + frame() * 9
        message = f"an MP3 whose tag counts {frames} frames in 4170 bytes"
        expected = "" if regular or word == b"Xing" else message
        assert read(data) == Header("mp3", 44_100, 2, irregularity=expected), frames


@pytest.mark.parametrize(("size", "regular"), [(4596, True), (4597, False)])
def test_frames_of_one_size_may_be_padded(size: int, regular: bool) -> None:
    """Each frame may have a padding byte, and the number of frames may be wrong by two."""
    data = (tagged(b"Info", 9, size) + frame() * 10).ljust(size, b"\1")
    assert (read(data).irregularity == "") == regular


def test_the_frames_after_the_tag_may_have_another_size() -> None:
    data = tagged(b"Info", 20, 417 + 20 * 104) + frame(head=SMALL) * 20
    assert read(data) == Header("mp3", 44_100, 2)
    single_frame = tagged(b"Info", 1, 417)
    assert read(single_frame) == Header("mp3", 44_100, 2)


@pytest.mark.parametrize("data", [frame() * 9, tagged(b"Xinq", 9, 4170) + frame() * 9])
def test_a_stream_without_a_tag_is_irregular(data: bytes) -> None:
    irregularity = "an MP3 without a Xing or Info tag"
    assert read(data) == Header("mp3", 44_100, 2, irregularity=irregularity)


def test_only_layer_iii_has_tags() -> None:
    head = bytes.fromhex("fffd9064")
    data = tagged(b"Info", 9, 5220, head=head) + frame(head=head) * 9
    assert read(data).irregularity == "an MP3 without a Xing or Info tag"


@pytest.mark.parametrize("size", [36 + 4, 36 + 15])
def test_a_file_that_ends_within_its_tag_is_truncated(size: int) -> None:
    with pytest.raises(RecordingError) as raised:
        read(cbr(9)[:size])
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.TRUNCATED)
    assert raised.value.message == (
        f"the file ends at byte {size}, within the MP3's Xing or Info tag"
    )
    assert read(cbr(9)[: 36 + 3]).irregularity == "an MP3 without a Xing or Info tag"


# Data before, between and after frames


@pytest.mark.parametrize("zeros", [4, 5, 2000, 65_535])
def test_zeros_before_the_first_frame_are_left_out(zeros: int) -> None:
    data = bytes(zeros) + frame() * 9
    assert read(data) == Header(
        *("mp3", 44_100, 2),
        irregularity="an MP3 without a Xing or Info tag",
        mended=f"an MP3 after {zeros} zero bytes",
        pieces=((0, 0), (zeros, zeros + 9 * 417)),
    )


def test_zeros_between_a_tag_and_the_first_frame_are_left_out() -> None:
    header = read(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + bytes(500) + frame() * 9)
    assert header.mended == "an MP3 after 500 zero bytes"
    assert header.pieces == ((0, 20), (520, 520 + 9 * 417))


def test_the_header_names_the_damage() -> None:
    header = read(frame() * 5 + b"\2" * 99 + frame(9) * 5)
    message = "the data at byte 2085 is neither a frame nor a tag"
    assert header.damage == (5 * 1152 - 3409, message)


@pytest.mark.parametrize("before", [64, 65, 66, 67, 20_000])
def test_a_walk_may_begin_anywhere(before: int) -> None:
    """Some header crosses the border of two blocks, because blocks are read from byte 0."""
    data = bytes(before) + frame() * 400
    result = walk(stored(data), before)
    assert result == Walk([(before, len(data))], len(data), 400 * 1152)


def test_a_walk_may_begin_with_other_data() -> None:
    result = walked(bytes(9), frame() * 5)
    assert result == Walk([(9, 9 + FIVE)], 9 + FIVE, 5 * 1152)


@pytest.mark.parametrize(
    "before",
    [b"\1" * 4, bytes(3), bytes(65_537), bytes(9) + b"x" + bytes(9)],
)
def test_a_file_with_other_bytes_before_the_first_frame_is_not_an_mp3(before: bytes) -> None:
    assert read(before + frame() * 9) == Header()


def test_the_parts_of_a_stream_are_joined() -> None:
    junk = b"\2" * 99
    data = frame() * 5 + junk + frame() * 5
    first, second = (0, 5 * 417), (5 * 417 + 99, len(data))
    mended = "an MP3 with other data between or after its frames"
    header = read(data)
    assert (header.mended, header.pieces) == (mended, ((0, 0), first, second))
    assert read(frame() * 5 + junk).pieces == ((0, 0), first)
    tagged_data = b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + data
    moved_ranges = tuple((a + 20, b + 20) for a, b in (first, second))
    assert read(tagged_data).pieces == ((0, 20), *moved_ranges)


def walked(*parts: bytes) -> Walk:
    return walk(stored(b"".join(parts)), 0)


FIVE = 5 * 417


@pytest.mark.parametrize(
    ("parts", "ranges", "samples"),
    [
        ((frame() * 5,), [(0, FIVE)], 5),
        ((frame() * 5, frame(head=SMALL) * 2), [(0, FIVE + 208)], 7),
        ((frame() * 5, ID3V1), [(0, FIVE)], 5),
        # Decoders skip a tag, too.
        ((frame() * 5, ID3V1, frame() * 5), [(0, 2 * FIVE + 128)], 10),
        ((frame() * 5, b"\2" * 9, ID3V1), [(0, FIVE)], 5),
        ((frame() * 5, b"\2" * 9, frame() * 3), [(0, FIVE), (FIVE + 9, FIVE + 9 + 3 * 417)], 8),
        ((frame() * 5, frame()[:300]), [(0, FIVE + 300)], 6),
        ((frame() * 5, HEAD[:3]), [(0, FIVE)], 5),
        # Two frames are a stream only if the file ends after them.
        ((frame() * 5, b"\2" * 9, frame() * 2), [(0, FIVE), (FIVE + 9, FIVE + 9 + 2 * 417)], 7),
        ((frame() * 5, b"\2" * 9, frame() * 2, b"\2"), [(0, FIVE)], 5),
        ((frame() * 5, b"\2" * 9, frame()), [(0, FIVE)], 5),
        # Frames of different kinds are not a stream.
        ((frame() * 5, b"\2" * 9, frame(), frame(head=b"\xff\xfb\x94\x64") * 2), None, 7),
    ],
)
def test_a_walk_finds_all_frames(
    parts: tuple[bytes, ...], ranges: list[tuple[int, int]] | None, samples: int
) -> None:
    result = walked(*parts)
    size = sum(map(len, parts))
    assert result.end == size - (128 if parts[-1] == ID3V1 else 0)
    assert result.samples == samples * 1152
    if ranges is not None:
        assert result.ranges == ranges


def test_a_tag_with_a_picture_that_looks_like_frames_is_cut_out() -> None:
    picture = b"ID3\4\0\0\0\0\0\x40" + HEAD + bytes(60)
    result = walked(frame() * 5, picture, frame() * 5)
    assert result.ranges == [(0, FIVE), (FIVE + 74, 2 * FIVE + 74)]
    other_picture = picture.replace(HEAD, b"\xff\xfb\x94\x64")  # another sample rate
    result = walked(frame() * 5, other_picture, frame() * 5)
    assert result.ranges == [(0, 2 * FIVE + 74)]


@pytest.mark.parametrize("at", [0, *range(65_520, 65_530), 70_000, 79_996])
def test_a_picture_is_found_anywhere_in_a_tag(at: int) -> None:
    body = bytes(at) + HEAD + bytes(80_000 - at - 4)
    digits = bytes(80_000 >> shift & 0x7F for shift in (21, 14, 7, 0))
    result = walked(frame() * 5, b"ID3\4\0\0" + digits + body, frame() * 5)
    assert len(result.ranges) == 2


@pytest.mark.parametrize(
    ("junk", "reach", "first", "hole"),
    [
        (b"\2" * 99, 9, HEAD, True),
        (b"\2" * 99, 1, HEAD, True),
        (b"\2" * 99, 2, HEAD, True),
        (b"\2" * 99, 0, HEAD, False),  # A new stream needs no bits of earlier frames.
        (b"\2" * 9 + ID3V1, 9, HEAD, False),
        (b"\2" * 99, 0, b"\xff\xfd\x90\x64", True),  # Layer II has no bit reservoir.
        (b"\2" * 99, 0, b"\xff\xf3\x90\x64", False),
    ],
)
def test_a_stream_that_continues_after_a_hole_is_damaged(
    junk: bytes, reach: int, first: bytes, hole: bool
) -> None:
    frames = frame(head=first)
    result = walked(frames * 8, junk, frame(reach, first), frames * 4)
    samples_before = 8 * parse(first).samples
    assert result.hole == ((samples_before, 8 * len(frames)) if hole else None)
    message = f"the data at byte {8 * len(frames)} is neither a frame nor a tag"
    # The samples of the tag's frame and of the encoder's delay do not count.
    assert result.damage == ((samples_before - 3409, message) if hole else None)


def test_the_reach_of_a_frame_is_stored_after_its_checksum() -> None:
    checked = bytes.fromhex("fffa9064")
    for reach, hole in [(b"\0\x7f", False), (b"\0\x80", True), (b"\1\0", True)]:
        first = (checked + b"\7\7" + reach).ljust(417, b"\1")
        result = walked(frame() * 8, b"\2" * 99, first, frame() * 4)
        assert (result.hole is not None) == hole
    # In MPEG-2, the reach has eight bits.
    mpeg2 = bytes.fromhex("fff39064")
    for reach, hole in [(b"\0\x80", False), (b"\1\0", True)]:
        first = (mpeg2 + reach).ljust(261, b"\1")
        result = walked(frame(head=mpeg2) * 8, b"\2" * 99, first, frame(head=mpeg2) * 4)
        assert (result.hole is not None) == hole


@pytest.mark.parametrize(("size", "ranges"), [(1 << 24, 1), ((1 << 24) + 1, 2)])
def test_a_tag_that_is_too_large_to_be_searched_is_cut_out(size: int, ranges: int) -> None:
    digits = bytes(size - 10 >> shift & 0x7F for shift in (21, 14, 7, 0))
    result = walked(frame() * 5, b"ID3\4\0\0" + digits + bytes(size - 10), frame() * 5)
    assert len(result.ranges) == ranges


def test_without_frames_after_other_data_there_is_no_hole() -> None:
    assert walked(frame() * 5, b"\2" * 99).hole is None
    assert walked(frame() * 5, b"\2" * 99, frame(9)).hole is None


def test_the_first_hole_is_reported() -> None:
    result = walked(frame() * 5, b"\2" * 9, frame(9) * 5, b"\2" * 9, frame(9) * 5)
    assert result.hole == (5 * 1152, FIVE)
    assert result.damage == (
        5 * 1152 - 3409,
        f"the data at byte {FIVE} is neither a frame nor a tag",
    )
    early_result = walked(frame(), b"\2" * 9, frame(9) * 5)
    assert early_result.damage == (0, "the data at byte 417 is neither a frame nor a tag")
    assert walked(frame()).damage is None


@pytest.mark.parametrize("size", [49_000, 65_500, 65_536, 65_540, 200_000])
def test_frames_are_found_after_much_other_data(size: int) -> None:
    result = walked(frame() * 5, b"\2" * size, frame() * 3)
    assert result.ranges == [(0, FIVE), (FIVE + size, FIVE + size + 3 * 417)]


def test_a_walk_crosses_the_borders_of_blocks() -> None:
    data = frame() * 400 + frame(head=SMALL) * 999 + frame() * 10
    assert walked(data) == Walk([(0, len(data))], len(data), 1409 * 1152)


def id3(size: int) -> bytes:
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + digits + bytes(size)


def ape_footer(size: int) -> bytes:
    return b"APETAGEX" + struct.pack("<IIII8x", 2000, size, 1, 0)


def test_a_large_tag_before_the_audio_does_not_count() -> None:
    assert read(id3(2000) + cbr(9)) == Header("mp3", 44_100, 2)


def test_a_tag_of_several_blocks_is_no_hole() -> None:
    whole = 5 * 417 + 200_010 + 5 * 417
    assert walked(frame() * 5, id3(200_000), frame(9) * 5) == Walk([(0, whole)], whole, 10 * 1152)


def test_the_end_of_the_file_is_read_once() -> None:
    file = stored(bytes(20_000) + frame() * 5 + HEAD[:3])
    assert walk(file, 20_000) == Walk([(20_000, 20_000 + FIVE)], 20_003 + FIVE, 5 * 1152)


def test_a_tag_that_begins_like_a_frame_is_no_frame() -> None:
    tag = HEAD + bytes(60) + ape_footer(96)
    assert walked(frame() * 5, tag) == Walk([(0, FIVE)], FIVE, 5 * 1152)


@pytest.mark.parametrize("first_item", [b"item" * 9, b""])
@pytest.mark.parametrize("junk", [b"", b"\2" * 99])
def test_frames_in_a_tag_after_the_audio_are_not_searched(junk: bytes, first_item: bytes) -> None:
    """The search once went on for as many bytes as lie before the tag."""
    inside = first_item + frame(9) * 3
    walked_through = walked(frame() * 5, junk, inside + ape_footer(len(inside) + 32))
    assert walked_through.hole is None
    assert walked_through.samples == 5 * 1152
