"""Headers of containers that only FFmpeg reads give the end of the audio."""

from __future__ import annotations

import io
import struct

import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.stored_file import StoredFile

#: An ID3v2 tag of 20 bytes.
TAG = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)


def read(data: bytes) -> Header:
    return examine_header(StoredFile(io.BytesIO(data)))


def asf(size: int) -> bytes:
    head = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", 50)
    packets = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", size)
    return head.ljust(50, b"\1") + packets


def voc(*sizes: int) -> bytes:
    blocks = b"".join(b"\1" + struct.pack("<I", size)[:3] + b"\2" * size for size in sizes)
    return (b"Creative Voice File\x1a" + struct.pack("<H", 30)).ljust(30, b"\1") + blocks


def avr(frames: int, stereo: int, bits: int) -> bytes:
    fields = struct.pack(">4s8sHH10sI", b"2BIT", b"name", stereo, bits, b"", frames)
    return fields.ljust(128, b"\1")


def sox(order: str, samples: int) -> bytes:
    return {"<": b".SoX", ">": b"XoS."}[order] + struct.pack(order + "IQ", 60, samples)


def chunked(name: bytes, form: str, size: int, kind: bytes = b"") -> bytes:
    return name + struct.pack(form, size) + kind


#: Name -> start of a file, container, end of the audio, and number of bytes that may be missing.
CLAIMS = {
    "asf": (asf(24 + 700), "asf", 50 + 724, 8),
    "avi": (chunked(b"RIFF", "<I", 700, b"AVI "), "avi", 708, 8),
    "8svx": (chunked(b"FORM", ">I", 700, b"8SVX"), "iff", 708, 8),
    "16sv": (chunked(b"FORM", ">I", 701, b"16SV"), "iff", 709, 8),
    "dff": (chunked(b"FRM8", ">Q", 700), "iff", 712, 8),
    "dsf": (b"DSD " + struct.pack("<QQ", 28, 700), "dsf", 700, 8),
    "sox": (sox("<", 100), "sox", 4 + 60 + 400, 0),
    "sox of the other order": (sox(">", 100), "sox", 4 + 60 + 400, 0),
    "avr": (avr(100, 0, 8), "avr", 128 + 100, 0),
    "avr of 16 bits": (avr(100, 0, 16), "avr", 128 + 200, 0),
    "avr in stereo": (avr(100, 0xFFFF, 16), "avr", 128 + 400, 0),
    "voc": (voc(300) + b"\1" + struct.pack("<I", 400)[:3], "voc", 30 + 304 + 404, 8),
}


@pytest.mark.parametrize("before", [b"", TAG], ids=["alone", "behind a tag"])
@pytest.mark.parametrize("name", CLAIMS)
def test_the_end_in_the_header_is_compared_with_the_size_of_the_file(
    name: str, before: bytes
) -> None:
    data, container, claimed, tolerance = CLAIMS[name]
    end = len(before) + claimed
    whole = (before + data).ljust(end, b"\2")
    assert read(whole) == Header(container, data_end=end)
    assert read(whole + b"\0") == Header(container, data_end=end)
    assert read(whole[: end - tolerance]) == Header(container, data_end=end)
    cut_size = end - tolerance - 1
    missing = (
        f"the {container} header declares audio up to byte {end}, "
        f"but the file ends at byte {cut_size}"
    )
    assert read(whole[:cut_size]) == Header(container, data_end=end, missing=missing)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (asf(0), Header("asf")),
        (asf(2**64 - 1), Header("asf")),
        (asf(0xFFFFFFFF), Header("asf")),
        (chunked(b"FORM", ">I", 0x7FFFF000, b"8SVX"), Header("iff")),
        (chunked(b"FRM8", ">Q", 2**63 - 1), Header("iff")),
        (b"DSD " + struct.pack("<QQ", 28, 2**63), Header("dsf")),
        (sox("<", 0), Header("sox")),
        (avr(0, 0, 8), Header("avr")),
        (chunked(b"RIFF", "<I", 0xFFFFFFFF, b"AVI "), Header("avi", data_end=0)),
    ],
)
def test_a_placeholder_in_the_header_is_ignored(data: bytes, expected: Header) -> None:
    assert read(data.ljust(300, b"\2")) == expected


@pytest.mark.parametrize(
    ("data", "container", "end"),
    [
        (chunked(b"FORM", ">I", 0x90000000, b"8SVX"), "iff", 0x90000008),
        (chunked(b"FRM8", ">Q", 2**63 + 5), "iff", 2**63 + 17),
        (b".SoX" + struct.pack("<IQ", 0x90000000, 1), "sox", 0x90000008),
        (sox(">", 2**63), "sox", 2**65 + 64),
        (avr(1, 0, 0x8010), "avr", 128 + 4098),
        (avr(0x90000000, 0, 8), "avr", 0x90000080),
    ],
)
def test_a_large_size_is_not_read_as_a_negative_size(data: bytes, container: str, end: int) -> None:
    data = data.ljust(300, b"\2")
    missing = f"the {container} header declares audio up to byte {end}, but the file ends at byte "
    assert read(data) == Header(container, data_end=end, missing=f"{missing}{len(data)}")


def test_a_voc_file_may_have_a_long_header() -> None:
    head = (b"Creative Voice File\x1a" + struct.pack("<H", 0x9000)).ljust(0x9000, b"\1")
    assert read(head + b"\1\4\0\0abcd\0") == Header("voc", data_end=0x9008)


def test_an_asf_file_with_late_packets_has_no_known_end() -> None:
    data = asf(10**6)
    assert read(data[:50] + b"x" + data[51:] + bytes(99)) == Header("asf")


@pytest.mark.parametrize("size", [700, 701])
def test_an_avi_file_may_have_several_parts(size: int) -> None:
    first = chunked(b"RIFF", "<I", size, b"AVI ").ljust(708 + 2 * (size % 2), b"\2")
    second = chunked(b"RIFF", "<I", 300, b"AVIX").ljust(308, b"\2")
    end = len(first) + 308
    assert read(first + second) == Header("avi", data_end=end)
    assert read(first + second + b"JUNK\x04\0\0\0abcd") == Header("avi", data_end=end)
    assert read(first + second[:-9]).missing.endswith(f"the file ends at byte {end - 9}")


def test_a_voc_file_ends_at_its_terminator() -> None:
    data = voc(300, 200)
    assert read(data + b"\0" + b"\1\xff\xff\xff") == Header("voc", data_end=len(data))


def test_the_number_of_blocks_read_from_a_voc_file_is_limited() -> None:
    blocks = 100_001
    assert read(voc() + b"\1\0\0\0" * blocks).data_end == 30 + 4 * 100_000


@pytest.mark.parametrize(
    ("data", "at", "size"),
    [
        (asf(1)[:23], 16, 8),
        (asf(1)[:70], 66, 8),
        (b"FRM8\0\0\0\0\0\0", 4, 8),
        (b"DSD " + bytes(15), 12, 8),
        (sox("<", 9)[:15], 4, 12),
        (avr(9, 0, 8)[:14], 12, 4),
        (avr(9, 0, 8)[:29], 26, 4),
        (voc()[:21], 20, 2),
        (voc() + b"\1\5\0", 31, 3),
    ],
)
def test_a_file_that_ends_within_its_header_is_truncated(data: bytes, at: int, size: int) -> None:
    with pytest.raises(RecordingError) as raised:
        read(data)
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.TRUNCATED)
    assert raised.value.message == (
        f"the header needs {size} bytes at byte {at}, but the file ends at byte {len(data)}"
    )
