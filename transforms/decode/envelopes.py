"""Containers that FFmpeg reads, and that say where they end: ASF, AVI, IFF, DSD, VOC, SOX, AVR.

FFmpeg takes a file that was cut for a shorter one. So the ends are looked at here.
"""

from __future__ import annotations

from melmill.transforms.decode.claims import Header, chunks, read_exactly, unpack
from melmill.transforms.decode.sized import PLACEHOLDERS, missing_bytes
from melmill.transforms.store.stored_file import StoredFile

#: The name of an ASF's data object.
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
#: Blocks of a VOC that are looked at; the audio of real files is in a few.
_MAX_BLOCKS = 100_000
_AVR_HEADER_BYTES = 128
#: Some writers count a size's own header in it. So few bytes hold no more than 1 ms of audio
#: (8 bits at 8 kHz) where they are missing, and in most formats an index or padding.
_HEAD_BYTES = 8


def read_asf(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the size of an ASF's packets; its duration may count what players wait for twice."""
    (head_bytes,) = unpack(file, start + 16, "<Q")
    at = start + head_bytes
    if file.read_at(at, 16) != _ASF_DATA:
        return Header("asf")
    return _claim(file, "asf", at, unpack(file, at + 16, "<Q")[0])


def read_avi(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the size of each part of an AVI."""
    end = start
    for name, at, size in chunks(file, start, "<4sI", padding=2):
        if name != b"RIFF" or size in PLACEHOLDERS:
            break
        end = at + size
    return Header("avi", data_end=end, missing=missing_bytes("avi", end, file, _HEAD_BYTES))


def read_iff(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the size of an IFF (8SVX, 16SV)."""
    return _claim(file, "iff", start + 8, unpack(file, start + 4, ">I")[0])


def read_dff(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the size of a DSDIFF."""
    return _claim(file, "iff", start + 12, unpack(file, start + 4, ">Q")[0])


def read_dsf(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the size of the file that a DSF says."""
    return _claim(file, "dsf", start, unpack(file, start + 12, "<Q")[0])


def read_sox(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the number of samples in SoX' own format."""
    order = "<" if magic.startswith(b".SoX") else ">"
    head_bytes, samples = unpack(file, start + 4, order + "IQ")
    return _claim(file, "sox", start + 4 + head_bytes, 4 * samples, tolerance=0)


def read_avr(file: StoredFile, start: int, magic: bytes) -> Header:
    """Read the number of frames in an AVR."""
    stereo, bits = unpack(file, start + 12, ">HH")
    (frames,) = unpack(file, start + 26, ">I")
    size = frames * (2 if stereo else 1) * (bits // 8)
    return _claim(file, "avr", start + _AVR_HEADER_BYTES, size, tolerance=0)


def read_voc(file: StoredFile, start: int, magic: bytes) -> Header:
    """Go from block to block of a VOC."""
    (at,) = unpack(file, start + 20, "<H")
    at += start
    for _ in range(_MAX_BLOCKS):
        kind = file.read_at(at, 1)
        if kind in (b"", b"\0"):  # the end of the file, or the block that says so
            break
        at += 4 + int.from_bytes(read_exactly(file, at + 1, 3), "little")
    return Header("voc", data_end=at, missing=missing_bytes("voc", at, file, _HEAD_BYTES))


def _claim(
    file: StoredFile, container: str, at: int, size: int, tolerance: int = _HEAD_BYTES
) -> Header:
    """Hold a claimed number of bytes, counted from byte `at`, against the file's end."""
    if size in PLACEHOLDERS:
        return Header(container)
    end = at + size
    return Header(container, data_end=end, missing=missing_bytes(container, end, file, tolerance))
