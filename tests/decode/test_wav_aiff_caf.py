"""Headers that give the size of the audio in bytes are read, and wrong sizes are corrected."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.stored_file import StoredFile

#: An ID3v2 tag of 20 bytes.
TAG = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
#: Bytes that contain no chunk, no tag and no placeholder.
NOISE = np.random.default_rng(0).bytes(200_000)
FMT = struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 4, 16)
ONES = 0xFFFFFFFF


def read(data: bytes) -> Header:
    return examine_header(StoredFile(io.BytesIO(data)))


def chunk(name: bytes, body: bytes, size: int | None = None, order: str = "<") -> bytes:
    size = len(body) if size is None else size
    return name + struct.pack(order + "I", size) + body + b"\0" * (len(body) % 2)


def wav(audio: bytes, size: int | None = None, magic: bytes = b"RIFF", head: bytes = b"") -> bytes:
    """Return a WAV file with 44 bytes and `head` before its audio. Padding may follow the audio."""
    data = chunk(b"data", audio, size)
    return magic + b"\1\2\3\4WAVE" + head + chunk(b"fmt ", FMT) + data


def rf64(audio: bytes, size: int, narrow: int = ONES, magic: bytes = b"RF64") -> bytes:
    """Return an RF64 file with 80 bytes before its audio and the size at byte 28."""
    wide = chunk(b"ds64", struct.pack("<QQQI", 1, size, 2, 0))
    return wav(audio, narrow, magic, wide)


def guid(name: bytes) -> bytes:
    return name + bytes.fromhex("f3acd3118cd100c04f8edb8a")


def w64(audio: bytes, size: int) -> bytes:
    """Return a W64 file with 112 bytes before its audio.

    `size` includes the header of the chunk, which has 24 bytes.
    """
    riff = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    data = guid(b"data") + struct.pack("<Q", size) + audio
    fmt = guid(b"fmt ") + struct.pack("<Q", 24 + 18) + FMT + bytes(2) + bytes(6)
    return riff + struct.pack("<Q", 1) + guid(b"wave") + fmt + data


def comm(rate: bytes = bytes.fromhex("400eac44000000000000")) -> bytes:
    return chunk(b"COMM", struct.pack(">HIH", 2, 77, 16) + rate, order=">")


def aiff(audio: bytes, size: int | None = None, kind: bytes = b"AIFF") -> bytes:
    """Return an AIFF file with 46 bytes before its audio."""
    return b"FORM\1\2\3\4" + kind + comm() + chunk(b"SSND", audio, size, ">")


def au(audio: bytes, size: int, order: str = ">") -> bytes:
    """Return an AU file with 30 bytes before its audio."""
    magic = b".snd" if order == ">" else b"dns."
    return magic + struct.pack(order + "5I", 30, size, 3, 44_100, 2) + b"\1" * 6 + audio


def caf(audio: bytes, size: int, rate: float = 44_100.0) -> bytes:
    """Return a CAF file with 64 bytes before its audio."""
    desc = struct.pack(">d4s4I", rate, b"lpcm", 0, 4, 1, 2) + struct.pack(">I", 16)
    head = b"caff\0\1\0\0desc" + struct.pack(">q", len(desc)) + desc
    return head + b"data" + struct.pack(">q", size) + audio


def nist(audio: bytes, head_bytes: int = 1024, **fields: object) -> bytes:
    values = {"channel_count": 2, "sample_n_bytes": 3, "sample_rate": 44_100, "sample_count": 50}
    lines = [f"{name} -i {value}" for name, value in {**values, **fields}.items() if value != ""]
    text = f"NIST_1A\n{head_bytes:>7}\n" + "\n".join(lines) + "\nend_head\n"
    return text.encode().ljust(head_bytes, b"\n") + audio


AUDIO = NOISE[:300]
#: Name -> file with 300 bytes of audio, container, and start of the audio.
WHOLE = {
    "wav": (wav(AUDIO), "wav", 44),
    "rf64": (rf64(AUDIO, 300), "rf64", 80),
    "bw64": (rf64(AUDIO, 300, magic=b"BW64"), "rf64", 80),
    "rf64 of a narrow size": (rf64(AUDIO, 10**9, narrow=300), "rf64", 80),
    "w64": (w64(AUDIO, 324), "w64", 112),
    "aiff": (aiff(AUDIO), "aiff", 46),
    "aifc": (aiff(AUDIO, kind=b"AIFC"), "aiff", 46),
    "au": (au(AUDIO, 300), "au", 30),
    "au of the other order": (au(AUDIO, 300, "<"), "au", 30),
    "caf": (caf(AUDIO, 300), "caf", 64),
    "nist": (nist(AUDIO), "nist", 1024),
    "nist of two blocks": (nist(AUDIO, 2048), "nist", 2048),
}


@pytest.mark.parametrize("before", [b"", TAG], ids=["alone", "behind a tag"])
@pytest.mark.parametrize("name", WHOLE)
def test_the_audio_ends_where_the_header_says(name: str, before: bytes) -> None:
    data, container, at = WHOLE[name]
    end = len(before) + at + 300
    assert read(before + data) == Header(container, 44_100, 2, end)
    missing = (
        f"the {container} header declares audio up to byte {end}, "
        f"but the file ends at byte {end - 1}"
    )
    assert read((before + data)[:-1]) == Header(container, 44_100, 2, end, missing=missing)


#: Name -> function that makes a file with a declared size, container, position of the size, format
#: of the size, number of bytes that the size counts besides the audio, and start of the audio.
FIELDS = {
    "wav": (wav, "wav", 40, "<I", 0, 44),
    "rf64": (rf64, "rf64", 28, "<Q", 0, 80),
    "w64": (w64, "w64", 104, "<Q", 24, 112),
    "aiff": (aiff, "aiff", 42, ">I", 0, 46),
    "au": (au, "au", 8, ">I", 0, 30),
    "caf": (caf, "caf", 56, ">Q", 0, 64),
}


@pytest.mark.parametrize("before", [b"", TAG], ids=["alone", "behind a tag"])
@pytest.mark.parametrize("size", [0, ONES, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("name", FIELDS)
def test_a_placeholder_is_replaced_by_the_size_of_the_audio(
    name: str, size: int, before: bytes
) -> None:
    make, container, field, form, surplus, at = FIELDS[name]
    data = before + make(AUDIO, size)
    audio_size = max(0, size - surplus)
    claim = "no audio" if audio_size == 0 else f"the placeholder {audio_size} as its size"
    start, field, end = len(before), len(before) + field, len(data)
    assert end == start + at + 300
    correct_size = struct.pack(form, 300 + surplus)
    header = read(data)
    assert header == Header(
        *(container, 44_100, 2, end),
        mended=f"a {container} header that declares {claim}",
        pieces=((0, field), correct_size, (field + len(correct_size), end)),
    )


@pytest.mark.parametrize("size", [2**64 - 1, 2**63 - 1, 2**63, 0x7FFFFFFFFFFFF000])
@pytest.mark.parametrize("name", ["rf64", "w64"])
def test_a_wide_placeholder_is_replaced_too(name: str, size: int) -> None:
    make, container, _, _, surplus, at = FIELDS[name]
    header = read(make(AUDIO, size))
    claim = f"the placeholder {size - surplus} as its size"
    assert (header.data_end, header.mended) == (
        at + 300,
        f"a {container} header that declares {claim}",
    )


@pytest.mark.parametrize("size", [-(2**63), 2**63 - 1])
def test_a_wide_placeholder_of_a_caf_file_is_replaced(size: int) -> None:
    claim = f"the placeholder {size % 2**64} as its size"
    assert read(caf(AUDIO, size)).mended == f"a caf header that declares {claim}"


def w64_chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    size = 24 + (len(body) if size is None else size)
    return guid(name) + struct.pack("<Q", size) + body + bytes(-len(body) % 8)


def aiff_chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return chunk(name, body, size, ">")


def caf_chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack(">q", len(body) if size is None else size) + body


#: Name -> function that makes a chunk, and the multiple of bytes to which chunks are padded.
CHUNKS = {
    "wav": (chunk, 2),
    "rf64": (chunk, 2),
    "w64": (w64_chunk, 8),
    "aiff": (aiff_chunk, 2),
    "caf": (caf_chunk, 1),
}


def padded(name: str, size: int, before: bytes = b"") -> tuple[bytes, int]:
    """Return a file with `size` bytes of audio and their padding, and the end of the audio."""
    make, _, _, _, surplus, at = FIELDS[name]
    data = before + make(NOISE[:size], size + surplus)[: at + size]
    return data + bytes(-size % CHUNKS[name][1]), len(data)


@pytest.mark.parametrize("before", [b"", TAG[:9] + b"\x0b" + bytes(11)], ids=["alone", "odd tag"])
@pytest.mark.parametrize("size", [300, 301])
@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_may_follow_the_audio_in_every_container(
    name: str, size: int, before: bytes
) -> None:
    make_chunk, _ = CHUNKS[name]
    data, end = padded(name, size, before)
    empty_chunk, odd_chunk = make_chunk(b"LIST", b""), make_chunk(b"odd?", b"\1" * 7)
    large_chunk = make_chunk(b"iXML", NOISE[:20_000])
    for chunks in (
        large_chunk,
        empty_chunk + large_chunk,
        odd_chunk + large_chunk,
        large_chunk + odd_chunk,
    ):
        assert read(data + chunks) == Header(FIELDS[name][1], 44_100, 2, end)


@pytest.mark.parametrize("size", [26, 27])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_few_bytes_after_a_chunk_are_not_audio(name: str, size: int) -> None:
    data, end = padded(name, 300)
    trailer = CHUNKS[name][0](b"LIST", b"\1" * size)
    assert read(data + trailer + NOISE[:4096]).data_end == end
    longer = data + trailer + NOISE[:4097]
    assert read(longer).data_end == len(longer)


@pytest.mark.parametrize("size", [0xFFFFFFF0, 0x10000])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_of_any_size_may_be_cut(name: str, size: int) -> None:
    data, end = padded(name, 300)
    trailer = CHUNKS[name][0](b"LIST", NOISE[:9000], size)
    assert read(data + trailer) == Header(FIELDS[name][1], 44_100, 2, end)


@pytest.mark.parametrize("rest", [b"", b"TAG" + bytes(125)], ids=["alone", "and a tag"])
@pytest.mark.parametrize("size", [26, 27])
@pytest.mark.parametrize("name", CHUNKS)
def test_audio_of_unknown_length_ends_before_any_chunks(name: str, size: int, rest: bytes) -> None:
    make, at = FIELDS[name][0], FIELDS[name][-1]
    make_chunk, _ = CHUNKS[name]
    trailers = make_chunk(b"LIST", b""), make_chunk(b"bext", b"\1" * size)
    last = make_chunk(b"cue ", b"\1" * 8)
    data = make(NOISE[:20_000], 0)
    assert read(data + b"".join(trailers) + last + rest).data_end == at + 20_000


@pytest.mark.parametrize(
    ("data", "name", "at"),
    [(wav(AUDIO), "wav", 12), (aiff(AUDIO), "aiff", 12), (caf(AUDIO, 300), "caf", 8)],
)
@pytest.mark.parametrize("body", [b"", b"\1" * 7, b"\1" * 8])
def test_other_chunks_before_the_audio_are_skipped(
    data: bytes, name: str, at: int, body: bytes
) -> None:
    extra_chunk = CHUNKS[name][0](b"what", body)
    header = read(data[:at] + extra_chunk + data[at:])
    assert header == Header(name, 44_100, 2, len(data) + len(extra_chunk))


@pytest.mark.parametrize("name", ["wav", "w64", "caf"])
def test_impossible_rates_and_numbers_of_channels_are_read(name: str) -> None:
    data, *_ = WHOLE[name]
    if name == "caf":
        header = read(data[:44] + b"\x90\0\0\0" + data[48:])
        assert header.channels == 0x90000000
    else:
        large_values = struct.pack("<HHI", 1, 0x9000, 0x90000000)
        header = read(data.replace(FMT[:8], large_values, 1))
        assert (header.channels, header.sample_rate_hz) == (0x9000, 0x90000000)


@pytest.mark.parametrize("name", ["wav", "aiff", "au"])
def test_a_size_of_more_than_two_gigabytes_is_corrected(name: str, tmp_path: Path) -> None:
    make, container, field, form, _, at = FIELDS[name]
    size = 0x90000000
    path = tmp_path / "sparse"
    path.write_bytes(make(b"", 0))
    os.truncate(path, at + size)
    with StoredObject(str(path)).open() as file:
        header = examine_header(file)
    assert (header.container, header.data_end) == (container, at + size)
    assert header.pieces == ((0, field), struct.pack(form, size), (field + 4, at + size))


@pytest.mark.parametrize("size", [0x80000000, 0x7FFFFFFF, 0x7FFFF000])
def test_a_correct_size_may_equal_a_placeholder(size: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(au(b"", size))
    os.truncate(path, 30 + size)
    with StoredObject(str(path)).open() as file:
        assert examine_header(file) == Header("au", 44_100, 2, 30 + size)


def test_a_file_that_is_one_byte_short_of_a_placeholder_has_no_length(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(au(b"", ONES))
    os.truncate(path, 30 + ONES - 1)
    with StoredObject(str(path)).open() as file:
        header = examine_header(file)
    assert header.missing == ""
    assert header.mended == f"a au header that declares the placeholder {ONES} as its size"


def test_the_largest_size_of_a_w64_chunk_ends_nothing() -> None:
    data = w64(NOISE[:2000] + guid(b"LIST") + b"\xff" * 8 + NOISE[:100], 0)
    assert read(data).data_end == len(data)


def test_sizes_of_w64_chunks_after_the_audio_have_no_sign() -> None:
    data, end = padded("w64", 300)
    rest = guid(b"LIST") + struct.pack("<Q", 2**63) + NOISE[:9000]
    assert read(data + rest) == Header("w64", 44_100, 2, end)


def test_a_nist_header_may_be_longer_than_usual() -> None:
    """A number across byte 1024 was once cut in two."""
    data = nist(AUDIO, 2048, sample_rate="44100\ncomment -s900 " + "c" * 916)
    assert data[1023:1025] == b"50"
    assert read(data) == Header("nist", 44_100, 2, 2048 + 300)


@pytest.mark.parametrize("name", FIELDS)
def test_a_header_without_audio_is_not_changed(name: str) -> None:
    make, container, _, _, _, at = FIELDS[name]
    assert read(make(b"", 0)) == Header(container, 44_100, 2, at)


@pytest.mark.parametrize("name", FIELDS)
def test_audio_after_the_declared_size_is_counted(name: str) -> None:
    make, container, field, form, surplus, at = FIELDS[name]
    data = make(NOISE[:20_000], 800 + surplus)
    correct_size = struct.pack(form, 20_000 + surplus)
    assert read(data) == Header(
        *(container, 44_100, 2, at + 20_000),
        mended=f"a {container} header that declares 800 bytes, but the file has 20000",
        pieces=((0, field), correct_size, (field + len(correct_size), at + 20_000)),
    )


@pytest.mark.parametrize(
    ("declared", "stray", "is_audio"),
    [
        (800, 4096, False),
        (800, 4097, True),
        (80_000, 10_000, False),
        (80_000, 10_001, True),
        (32_768, 4096, False),
        (32_768, 4097, True),
    ],
)
def test_a_few_bytes_after_the_audio_are_not_audio(
    declared: int, stray: int, is_audio: bool
) -> None:
    header = read(au(NOISE[: declared + stray], declared))
    assert bool(header.mended) == is_audio
    assert header.data_end == 30 + declared + stray * is_audio


def test_tags_after_the_audio_are_not_audio() -> None:
    tag = b"TAG" + b"\1" * 125
    assert read(au(NOISE[:800], 800) + tag).mended == ""
    assert read(au(NOISE[: 800 + 4096], 800) + tag).mended == ""
    longer = read(au(NOISE[: 800 + 4097], 800) + tag)
    assert longer.mended.endswith("the file has 4897")


def test_zeros_after_the_audio_are_not_audio() -> None:
    assert read(au(AUDIO + bytes(9000), 300)).mended == ""
    assert read(au(AUDIO + bytes(4095) + b"x" * 5000, 300)).mended
    assert not read(au(AUDIO + bytes(4096) + b"x" * 5000, 300)).mended


LIST = chunk(b"LIST", b"\1" * 26)


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("trailer", [LIST, LIST + chunk(b"odd?", b"\1" * 7) + LIST])
def test_chunks_after_the_audio_are_not_audio(trailer: bytes, padded: bool, odd: int) -> None:
    size = 300 + odd
    data = wav(NOISE[:size])
    data = data if padded else data[: 44 + size]
    large = chunk(b"iXML", NOISE[:20_000])
    assert read(data + trailer + large) == Header("wav", 44_100, 2, 44 + size)


def test_audio_after_a_chunk_is_found() -> None:
    header = read(wav(AUDIO) + LIST + NOISE[:9000])
    assert header.mended.endswith("declares 300 bytes, but the file has 9334")


def test_a_chunk_that_is_cut_is_not_audio() -> None:
    assert not read(wav(AUDIO) + chunk(b"iXML", NOISE[:9000], 9001)).mended
    # No program writes a chunk with this name after the audio, and the size exceeds the file, so
    # the bytes are audio.
    assert read(wav(AUDIO) + chunk(b"what", NOISE[:9000], 9001)).mended


@pytest.mark.parametrize("word", [b"RIFF", b"RF64", b"FORM", b"caff"])
def test_another_file_after_the_audio_is_refused(word: bytes) -> None:
    data = wav(AUDIO) + LIST
    with pytest.raises(RecordingError) as raised:
        read(data + chunk(word, NOISE[:9000]))
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.CORRUPT)
    assert raised.value.message == f"another file begins at byte {len(data)}, after the audio"


@pytest.mark.parametrize("size", [0, ONES])
@pytest.mark.parametrize("end", [None, -1])
def test_audio_of_unknown_length_ends_before_its_chunks(size: int, end: int | None) -> None:
    """The last chunk may lack its padding byte."""
    last = chunk(b"bext", b"\1" * 9)[:end]
    header = read(wav(NOISE[:20_000], size) + LIST + chunk(b"cue ", b"\1" * 8) + last)
    assert header.data_end == 44 + 20_000


@pytest.mark.parametrize(
    "trailer",
    [
        chunk(b"LIST", b"\1" * 26, 25 - 3),  # The next bytes are not the name of a chunk.
        chunk(b"LIST", b"\1" * 26, 30),  # The chunk exceeds the file.
        LIST + b"LIST",
        LIST + chunk(b"what", b"\1" * 8),
    ],
)
def test_audio_of_unknown_length_may_contain_the_names_of_chunks(trailer: bytes) -> None:
    data = wav(NOISE[:20_000] + trailer, 0)
    assert read(data).data_end == len(data)


def test_only_the_last_mebibyte_is_searched_for_chunks() -> None:
    audio = b"\1" * 5000
    for size, is_found in [((1 << 20) - 8, True), ((1 << 20) - 6, False)]:
        data = wav(audio, 0) + chunk(b"LIST", b"\1" * size)
        assert read(data).data_end == (5044 if is_found else len(data))


def test_a_wav_of_mpeg_audio_is_left_to_ffmpeg() -> None:
    for tag in (0x50, 0x55):
        data = wav(AUDIO).replace(b"\1\0\2\0", bytes([tag]) + b"\0\2\0", 1)
        assert read(data) == Header(
            "wav", data_end=344, irregularity="a WAV file that contains MPEG audio"
        )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"RIFF\0\0\0\0WAVE", Header("wav")),
        (b"RF64\0\0\0\0WAVE" + chunk(b"fmt ", FMT), Header("rf64", 44_100, 2)),
        (wav(AUDIO)[:12] + chunk(b"data", AUDIO), Header("wav", None, None, 320)),
        (w64(AUDIO, 324)[:88], Header("w64", 44_100, 2)),
        (w64(AUDIO, 324)[:40] + w64(AUDIO, 324)[88:], Header("w64", None, None, 364)),
        (b"FORM\0\0\0\0AIFF", Header("aiff")),
        (b"FORM\0\0\0\0AIFF" + comm(), Header("aiff", 44_100, 2)),
        (caf(AUDIO, 300)[:52], Header("caf", 44_100, 2)),
        (caf(AUDIO, -1), Header("caf", 44_100, 2)),
        (b"caff\0\1\0\0data" + struct.pack(">q", 300) + AUDIO, Header("caf", None, None, 320)),
    ],
)
def test_values_that_a_header_lacks_are_none(data: bytes, expected: Header) -> None:
    assert read(data) == expected


def test_a_w64_chunk_that_is_smaller_than_its_header_is_empty() -> None:
    header = read(w64(AUDIO, 23))
    assert header.mended == "a w64 header that declares no audio"


def test_an_aiff_file_may_give_its_rate_after_its_audio() -> None:
    head = b"FORM\1\2\3\4AIFF"
    data = head + chunk(b"SSND", AUDIO, order=">") + comm() + chunk(b"SSND", b"", order=">")
    assert read(data) == Header("aiff", 44_100, 2, 320)
    # If the size is unknown, nothing is searched after the audio.
    unknown = head + chunk(b"SSND", AUDIO, ONES, ">")
    assert (read(unknown).sample_rate_hz, read(unknown).data_end) == (None, 320)


@pytest.mark.parametrize(
    ("extended", "rate"),
    [
        ("400bfa00000000000000", 8000),
        ("400fbb80000000000000", 96_000),
        ("400eac44800000000000", 44_100),  # 44,100.5
        ("403e8000000000000000", 2**63),
        ("403f8000000000000000", 0),
        ("3fff8000000000000000", 1),
        ("3ffeffffffffffffffff", 0),
        ("c00eac44000000000000", 0),
    ],
)
def test_a_rate_of_80_bits_is_read(extended: str, rate: int) -> None:
    assert read(b"FORM\0\0\0\0AIFF" + comm(bytes.fromhex(extended))).sample_rate_hz == rate


@pytest.mark.parametrize(
    ("claimed", "rate"),
    [
        (48_000.9, 48_000),
        (float("nan"), 0),
        (float("inf"), 0),
        (2.0**63, 0),
        (-(2.0**63), 0),
        (-1.0, -1),
        (2.0**62, 2**62),
    ],
)
def test_the_rate_of_a_caf_file_may_have_any_value(claimed: float, rate: int) -> None:
    assert read(caf(AUDIO, 300, claimed)).sample_rate_hz == rate


UNCOUNTED = Header("nist", 44_100, 2, irregularity="a NIST header that does not count its samples")
LACKING = Header("nist", irregularity="a NIST header that lacks a field")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (nist(AUDIO, sample_count=""), UNCOUNTED),
        (nist(AUDIO, sample_count="many"), UNCOUNTED),
        (nist(AUDIO, sample_count=0), UNCOUNTED),
        (nist(AUDIO, sample_count=ONES), UNCOUNTED),
        (nist(AUDIO, channel_count=""), LACKING),
        (nist(AUDIO, sample_n_bytes=""), LACKING),
        (nist(AUDIO, sample_rate="44.1k"), LACKING),
        (nist(AUDIO).replace(b"   1024", b"    1 k"), LACKING),
        (b"NIST_1A\n", LACKING),
        (nist(AUDIO).replace(b"sample_rate -i", b"sample_rate -i -i"), LACKING),
        (nist(AUDIO).replace(b"end_head", b"\xff\xfe-----x"), Header("nist", 44_100, 2, 1324)),
        (nist(AUDIO, pad=b"x" * 2000), Header("nist", 44_100, 2, 1324)),
    ],
)
def test_an_incomplete_nist_header_is_irregular(data: bytes, expected: Header) -> None:
    assert read(data) == expected


@pytest.mark.parametrize(
    ("data", "at", "size"),
    [
        (wav(AUDIO)[:27], 20, 8),
        (w64(AUDIO, 324)[:71], 66, 6),
        (aiff(AUDIO)[:37], 20, 18),
        (au(AUDIO, 300)[:23], 4, 20),
        (caf(AUDIO, 300)[:47], 20, 28),
    ],
)
def test_a_file_that_ends_within_a_field_is_truncated(data: bytes, at: int, size: int) -> None:
    with pytest.raises(RecordingError) as raised:
        read(data)
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.TRUNCATED)
    assert raised.value.message.startswith(f"the header needs {size} bytes at byte {at}, ")


def test_a_size_that_does_not_fit_its_field_becomes_the_largest_value() -> None:
    from melmill.transforms.decode.wav_aiff_caf import _Size

    assert _Size(0, "<I").pack(2**32 - 2) == b"\xfe\xff\xff\xff"
    assert _Size(0, "<I").pack(2**32 + 5) == b"\xff\xff\xff\xff"
    assert _Size(0, ">I", surplus=1).pack(2**32 - 2) == b"\xff\xff\xff\xff"
    assert _Size(0, "<Q", surplus=24).pack(300) == struct.pack("<Q", 324)
