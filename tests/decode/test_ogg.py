"""Ogg pages are found and parsed; they give the start, the end and the frames of streams."""

from __future__ import annotations

import io
import struct
from itertools import chain

import pytest

from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.ogg import (
    Page,
    checksum,
    count_frames,
    first_damage,
    is_intact,
    last_page,
    parse_page,
    tail_pages,
)
from melmill.transforms.store.stored_file import StoredFile
from tests.damage import sign_page

BEGINS, ENDS = 2, 4


def stored(data: bytes) -> StoredFile:
    return StoredFile(io.BytesIO(data))


def read(data: bytes) -> Header:
    return examine_header(stored(data))


def page(granule: int, *packets: bytes, flags: int = 0, serial: int = 1, number: int = 0) -> bytes:
    """Return a page of whole packets."""
    lacing = b"".join(
        b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets
    )
    head = b"OggS\0" + struct.pack("<BqIIIB", flags, granule, serial, number, 0, len(lacing))
    return sign_page(head + lacing + b"".join(packets))


def opus_head(skipped_frames: int = 312) -> bytes:
    return b"OpusHead\1\1" + struct.pack("<H", skipped_frames) + bytes(7)


#: A packet of 20 ms, which is 960 frames at 48 kHz.
PACKET = bytes([19 << 3]) + b"sound"


def opus(
    granules: list[int],
    packets: int = 5,
    serial: int = 1,
    skipped_numbers: int = 0,
    skipped_frames: int = 312,
) -> list[bytes]:
    """Return the pages of an Opus stream: two header pages, then a page for each granule."""
    pages = [page(0, opus_head(skipped_frames), flags=BEGINS, serial=serial)]
    pages.append(page(0, b"OpusTags", serial=serial, number=1))
    for i, granule in enumerate(granules):
        flags = ENDS if i == len(granules) - 1 else 0
        page_packets = [PACKET] * packets
        pages.append(
            page(granule, *page_packets, flags=flags, serial=serial, number=i + 2 + skipped_numbers)
        )
    return pages


WHOLE = opus([4800, 9600, 14_000])


# One page


def test_a_page_header_is_parsed() -> None:
    data = page(0x123456789A, b"a" * 300, b"b", flags=4, serial=0xFEDCBA98, number=7)
    expected = Page(4, 0x123456789A, 0xFEDCBA98, 1009, 1009 + 30, 1009 + 30 + 301)
    assert parse_page(b"ten bytes." + data, 10, 999) == expected
    assert parse_page(data, 0, 0) == Page(4, 0x123456789A, 0xFEDCBA98, 0, 30, 331)
    assert parse_page(page(-1), 0, 0) == Page(0, -1, 1, 0, 27, 27)


@pytest.mark.parametrize("data", [b"", b"OggS\1" + bytes(40), b"OggX\0" + bytes(40), page(-1)[:26]])
def test_other_bytes_are_not_a_page(data: bytes) -> None:
    assert parse_page(data, 0, 0) is None
    assert parse_page(b"x" + data, 1, 0) is None


def test_a_checksum_covers_every_byte_but_itself() -> None:
    data = page(7, b"sound")
    assert is_intact(data)
    assert checksum(data) == struct.unpack("<I", data[22:26])[0]
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert not is_intact(changed)
        assert (checksum(changed) == checksum(data)) == (22 <= at < 26)


# The header of a file


@pytest.mark.parametrize("before", [b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)])
def test_the_header_of_a_whole_stream_gives_its_frames(before: bytes) -> None:
    assert read(before + b"".join(WHOLE)) == Header("ogg", promised=14_000 - 312)


def test_vorbis_skips_nothing() -> None:
    pages = [page(0, b"\1vorbis" + b"\7" * 30, flags=BEGINS), page(0, b"\3vorbis")]
    pages += [page(9000, b"sound"), page(19_000, b"sound", flags=ENDS)]
    assert read(b"".join(pages)) == Header("ogg", promised=19_000)


def test_the_audio_of_a_short_stream_is_in_a_single_page() -> None:
    assert read(b"".join(opus([4000]))) == Header("ogg", promised=3688, single_page=True)


def test_a_last_page_without_the_end_flag_gets_the_flag() -> None:
    last = page(14_000, *[PACKET] * 5, number=4)
    data = b"".join(WHOLE[:-1]) + last
    marked = page(14_000, *[PACKET] * 5, number=4, flags=ENDS)
    assert read(data) == Header(
        "ogg",
        promised=13_688,
        mended="an Ogg stream whose last page is not marked as its end",
        pieces=((0, len(data) - len(last)), marked),
    )


def test_a_last_page_keeps_its_other_flags() -> None:
    last = page(14_000, *[PACKET] * 5, number=4, flags=1)
    marked = page(14_000, *[PACKET] * 5, number=4, flags=1 | ENDS)
    for rest in (b"", b"TAG" + bytes(125)):
        assert read(b"".join(WHOLE[:-1]) + last + rest).pieces[-1] == marked


@pytest.mark.parametrize(
    ("first", "position"),
    [
        (4800, 0),
        (4801, 1),
        (4800 + 48_000, 48_000),
        (1, -4799),
        (4799, -1),  # The page counts fewer frames than its packets, but it is not the last page.
    ],
)
def test_a_stream_may_begin_anywhere(first: int, position: int) -> None:
    header = read(b"".join(opus([first, first + 4800])))
    irregularity = f"an Ogg stream that begins at position {position}" if position else ""
    assert header == Header("ogg", irregularity=irregularity, promised=first + 4800 - 312)


def test_the_only_page_may_count_fewer_frames_than_its_packets() -> None:
    assert read(b"".join(opus([4000]))).irregularity == ""
    assert read(b"".join(opus([4801]))).irregularity == "an Ogg stream that begins at position 1"


@pytest.mark.parametrize(
    ("packet", "frames"),
    [
        *(
            (bytes([config << 3]), 120 * quarters)
            for config, quarters in [
                (0, 4),
                (1, 8),
                (2, 16),
                (3, 24),
                (4, 4),
                (8, 4),
                (11, 24),
                (12, 4),
                (13, 8),
                (14, 4),
                (15, 8),
                (16, 1),
                (17, 2),
                (18, 4),
                (19, 8),
                (31, 8),
            ]
        ),
        (b"\x98", 960),
        (b"\x99", 1920),
        (b"\x9a", 1920),
        (b"\x9b\x03", 2880),
        (b"\x9b\xc5rest", 4800),
        (b"\x9b", 0),
        (b"", 0),
    ],
)
def test_a_packets_first_bytes_give_its_length(packet: bytes, frames: int) -> None:
    """The lengths come from the table of configurations in RFC 6716, in units of 2.5 ms."""
    pages = [*WHOLE[:2], page(5000, packet, number=2), *WHOLE[3:]]
    position = 5000 - frames
    irregularity = f"an Ogg stream that begins at position {position}" if position else ""
    assert read(b"".join(pages)).irregularity == irregularity


def test_the_lacing_values_separate_packets() -> None:
    packets = [PACKET.ljust(size, b"\xff") for size in (254, 255, 256, 510, 600)]
    pages = [*WHOLE[:2], page(5 * 960 + 7, *packets, number=2), *WHOLE[3:]]
    assert read(b"".join(pages)).irregularity == "an Ogg stream that begins at position 7"
    # A packet that ends on the next page counts on the next page.
    head = b"OggS\0" + struct.pack("<BqIIIB", 0, 967, 1, 2, 0, 2) + b"\6\xff" + PACKET
    pages = [*WHOLE[:2], sign_page(head + b"\1" * 255), *WHOLE[3:]]
    assert read(b"".join(pages)).irregularity == "an Ogg stream that begins at position 7"


@pytest.mark.parametrize(("header_pages", "is_read"), [(254, True), (255, False)])
def test_a_limited_number_of_header_pages_is_read(header_pages: int, is_read: bool) -> None:
    pages = WHOLE[:1] + [page(0, b"picture", number=i + 1) for i in range(header_pages)]
    pages += [page(4807, *[PACKET] * 5), WHOLE[-1]]
    assert bool(read(b"".join(pages)).irregularity) == is_read


def test_a_stream_without_audio_gives_no_frames() -> None:
    header = read(WHOLE[0] + page(0, b"OpusTags", flags=ENDS))
    assert header == Header("ogg", promised=-312)


def test_a_stream_may_be_one_page() -> None:
    assert read(page(0, opus_head(), flags=BEGINS | ENDS)) == Header("ogg", promised=-312)


def test_streams_side_by_side_are_irregular() -> None:
    picture = page(0, b"picture", flags=BEGINS, serial=9)
    data = picture + b"".join(WHOLE)
    assert read(data) == Header("ogg", irregularity="several Ogg streams side by side")
    header = read(data[:-1])
    assert (header.irregularity, bool(header.missing)) == ("several Ogg streams side by side", True)


def test_the_frames_of_a_chained_stream_are_counted() -> None:
    second = opus([4800, 9000], serial=2, skipped_frames=100)
    data = b"".join(WHOLE + second)
    expected = Header("ogg", irregularity="a chained Ogg stream", frames=13_688 + 8900)
    assert read(data) == expected
    missing = f"the last Ogg page ends at byte {len(data)}, but the file at byte {len(data) - 1}"
    assert read(data[:-1]) == Header("ogg", irregularity="a chained Ogg stream", missing=missing)


def test_the_end_of_a_cut_stream_is_missing() -> None:
    data = b"".join(WHOLE)
    for cut_bytes in (1, 30):
        missing = f"the last Ogg page ends at byte {len(data)}, but the file at byte "
        header = read(data[:-cut_bytes])
        assert header.missing == f"{missing}{len(data) - cut_bytes}"
        assert (header.irregularity, header.promised) == ("", 9600 - 312)
        assert header.mended == "an Ogg stream whose last page is not marked as its end"
    single_page_header = read(WHOLE[0][:-1])
    assert (single_page_header.irregularity, bool(single_page_header.missing)) == (
        "an Ogg stream that is cut",
        True,
    )


@pytest.mark.parametrize("data", [b"OggS" + bytes(60), page(0, b"x", flags=0)[:5] + b"\1" * 60])
def test_a_stream_without_whole_pages_is_irregular(data: bytes) -> None:
    assert read(data).irregularity == "an Ogg stream without whole pages"


def test_a_page_that_does_not_begin_a_stream_is_irregular() -> None:
    assert read(WHOLE[2]) == Header("ogg", irregularity="an Ogg stream without whole pages")


@pytest.mark.parametrize("streams", [2, 64, 70])
def test_up_to_64_streams_side_by_side_are_read(streams: int) -> None:
    firsts = [page(0, b"x", flags=BEGINS, serial=i) for i in range(streams)]
    assert "side by side" in read(b"".join(firsts)).irregularity


# The last pages


@pytest.mark.parametrize("size", [1, 4, 5, 26])
def test_a_cut_page_header_counts_as_a_page(size: int) -> None:
    data = WHOLE[0] + WHOLE[1]
    at = len(data)
    last = last_page(stored(data + WHOLE[2][:size]))
    assert last == Page(0, -1, 0, at, at + 27, at + 27)


def test_a_page_inside_the_last_page_is_not_the_last() -> None:
    inside = page(77, b"inside")
    outside = page(9600, b"x" * 20_000 + inside, flags=ENDS)
    last = last_page(stored(WHOLE[0] + WHOLE[1] + outside))
    assert last is not None
    assert last.granule == 9600


def test_other_bytes_at_the_end_are_not_a_page() -> None:
    data = WHOLE[0] + WHOLE[1]
    expected = parse_page(WHOLE[1], 0, len(WHOLE[0]))
    for rest in (b"", b"Og?", b"TAG", b"x"):
        assert last_page(stored(data + rest)) == expected
    assert last_page(stored(b"no page" * 99)) is None


def test_bytes_that_look_like_pages_are_not_pages() -> None:
    inner = page(77, b"inner")
    broken = inner[:-1] + b"?"
    data = WHOLE[0] + broken + page(5, b"OggS\0" + inner) + broken + WHOLE[-1]
    granules = [found_page.granule for found_page in tail_pages(stored(data), 10**6)]
    assert granules == [0, 5, 14_000]


def test_pages_are_distinguished_from_other_bytes_far_from_the_start() -> None:
    before = b"?" * 20_000
    data = before + b"".join(WHOLE)
    at = len(data)
    assert last_page(stored(data + b"Ogg")) == Page(0, -1, 0, at, at + 27, at + 27)
    assert last_page(stored(data + WHOLE[2][:-1] + b"?")) == last_page(stored(data))
    # The size in this page header includes the start of the real pages.
    claim = b"OggS\0" + bytes(21) + b"\1\x64"
    pages = tail_pages(stored(before + claim + b"".join(WHOLE)), 1 << 14)
    assert [found_page.granule for found_page in pages] == [0, 0, 4800, 9600, 14_000]


def test_the_tail_has_the_given_size() -> None:
    data = b"".join(WHOLE)
    last_bytes, second_bytes = len(WHOLE[-1]), len(WHOLE[-2])
    for tail, number in [
        (last_bytes - 1, 0),
        (last_bytes, 1),
        (last_bytes + second_bytes - 1, 1),
        (last_bytes + second_bytes, 2),
    ]:
        ends = [found_page.end for found_page in tail_pages(stored(data), tail)]
        assert ends == [len(data) - last_bytes, len(data)][2 - number :]


# Damage


def damage(*pages: bytes) -> tuple[int, str] | None:
    return first_damage(stored(b"".join(pages)), 0)


def test_whole_streams_have_no_damage() -> None:
    assert damage(*WHOLE) is None
    assert damage(*WHOLE, *opus([4800, 9600], serial=2)) is None
    assert damage(*WHOLE, *opus([4800, 9600])) is None
    assert damage(*WHOLE[:3], b"other data", *WHOLE[3:]) is None
    assert damage(*opus([480_000 + 4800 * i for i in range(4)], skipped_numbers=500)) is None
    assert damage() is None
    # Page numbers have 32 bits without a sign.
    assert damage(*opus([4800, 9600, 14_400], skipped_numbers=2**31 - 4)) is None


def test_pages_without_the_start_of_their_stream_are_counted() -> None:
    assert damage(*WHOLE[2:]) is None
    assert frames(*WHOLE[2:]) == 14_000


def test_a_broken_page_is_damage() -> None:
    broken = WHOLE[3][:-1] + b"?"
    at = sum(map(len, WHOLE[:3]))
    expected = (4800 - 312, f"the Ogg page at byte {at} is damaged")
    assert damage(*WHOLE[:3], broken, WHOLE[4]) == expected
    assert damage(*WHOLE[:3], WHOLE[3][:-1]) == expected
    assert damage(WHOLE[0][:-1] + b"?") == (0, "the Ogg page at byte 0 is damaged")


@pytest.mark.parametrize("between", [b"", b"other data"])
def test_a_missing_page_is_damage(between: bytes) -> None:
    at = sum(map(len, WHOLE[:3])) + len(between)
    expected = (4800 - 312, f"Ogg pages are missing before byte {at}")
    assert damage(*WHOLE[:3], between, WHOLE[4]) == expected


def test_a_repeated_page_is_damage() -> None:
    at = sum(map(len, WHOLE[:4]))
    expected = (9600 - 312, f"Ogg pages are missing before byte {at}")
    assert damage(*WHOLE[:4], WHOLE[3], WHOLE[4]) == expected


def test_pages_are_numbered_in_each_stream() -> None:
    second_stream = opus([4800, 9600, 14_400], serial=2)
    pairs = [
        interleaved_page
        for pair in zip(WHOLE, second_stream, strict=True)
        for interleaved_page in pair
    ]
    assert damage(*pairs) is None
    del pairs[6]
    assert damage(*pairs) == (9288, f"Ogg pages are missing before byte {sum(map(len, pairs[:7]))}")


def test_the_first_page_with_audio_may_have_any_number() -> None:
    late_stream = opus([4800, 9600], skipped_numbers=7)
    assert damage(*late_stream) is None
    # Only the first page with audio may have any number.
    assert damage(*late_stream[:3], opus([1, 9600], skipped_numbers=9)[3]) == (
        *(4488, f"Ogg pages are missing before byte {sum(map(len, late_stream[:3]))}"),
    )


@pytest.mark.parametrize("size", [1, 65_000, 65_300, 65_307, 65_312, 140_000, 300_000])
@pytest.mark.parametrize("fill", [b"?", b"OggS\0\0"])
def test_pages_are_found_after_much_other_data(size: int, fill: bytes) -> None:
    junk = b"?" + (fill * size)[: size - 1]
    assert damage(*WHOLE[:3], junk, *WHOLE[3:]) is None
    at = sum(map(len, WHOLE[:3])) + size
    expected = (4488, f"Ogg pages are missing before byte {at}")
    assert damage(*WHOLE[:3], junk, WHOLE[4]) == expected


def test_a_page_of_the_largest_size_is_found() -> None:
    lacing = b"\xff" * 255
    head = b"OggS\0" + struct.pack("<BqIIIB", 4, 20_000, 1, 5, 0, 255)
    largest = sign_page(head + lacing + b"\7" * 255 * 255)
    assert damage(*WHOLE[:3], b"?" * 60_000, largest) == (
        *(4488, f"Ogg pages are missing before byte {sum(map(len, WHOLE[:3])) + 60_000}"),
    )


def test_a_page_inside_a_page_after_much_other_data_is_not_a_page() -> None:
    large_page = page(20_000, WHOLE[3] + b"\7" * 60_000, number=5)
    at = sum(map(len, WHOLE[:3])) + 100_000
    expected = (4488, f"Ogg pages are missing before byte {at}")
    assert damage(*WHOLE[:3], b"?" * 100_000, large_page) == expected


# Frames


def frames(*pages: bytes) -> int:
    return count_frames(stored(b"".join(pages)), 0)


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([WHOLE], 13_688),
        ([WHOLE, WHOLE], 2 * 13_688),
        ([WHOLE, opus([4800, 9000], serial=2, skipped_frames=0)], 13_688 + 9000),
        ([opus([48_000 + 4800, 48_000 + 9600])], 9288),
        ([opus([9 * 10**6, 9 * 10**6 + 4800])], 4800 + 4800 - 312),
        ([opus([4800 * i for i in range(1, 11)], skipped_frames=40_000)], 8000),
        # Without packets, the number of frames before the first page with audio is unknown.
        ([opus([2**21 + 1, 2**21 + 4801], packets=0)], 4800 - 312),
        ([opus([2**21, 2**21 + 4800], packets=0)], 4800 - 312),
        ([WHOLE[:2]], 0),
        ([WHOLE[:2], WHOLE], 13_688),
    ],
)
def test_frames_of_chained_streams_are_added_up(streams: list[list[bytes]], expected: int) -> None:
    assert frames(*[stream_page for stream in streams for stream_page in stream]) == expected


def test_the_longest_of_parallel_streams_counts() -> None:
    second_stream = opus([4800, 9600, 14_400], serial=2)
    pairs = [
        interleaved_page
        for pair in zip(WHOLE, second_stream, strict=True)
        for interleaved_page in pair
    ]
    assert frames(*pairs) == 14_400 - 312
    assert frames(*pairs, *opus([4800], serial=3)) == 14_400 - 312 + 4800 - 312


def test_each_of_parallel_streams_has_its_own_start() -> None:
    streams = opus([52_800, 57_600]), opus([4800, 9600], serial=2)
    assert frames(*chain.from_iterable(zip(*streams, strict=True))) == 9600 - 312


def vorbis(*granules: int) -> list[bytes]:
    first = page(0, b"\1vorbis" + b"\7" * 30, flags=BEGINS)
    return [first, *(page(granule, b"sound") for granule in granules)]


@pytest.mark.parametrize(
    ("granules", "expected"),
    [
        ((5000, 9000), 9000),
        ((2**21, 2**21 + 9000), 2**21 + 9000),
        ((2**21 + 1, 2**21 + 9000), 8999),
        ((-1, 5000, -1, 9000), 9000),
    ],
)
def test_the_first_page_gives_the_start_of_a_vorbis_stream(
    granules: tuple[int, ...], expected: int
) -> None:
    assert frames(*vorbis(*granules)) == expected
