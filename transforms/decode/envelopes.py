"""Headers of containers that only FFmpeg reads: ASF, AVI, IFF, DSD, VOC, SOX, AVR.

FFmpeg treats a truncated file as a complete shorter file. So the end that the header claims
is checked here.
"""

from __future__ import annotations

from melmill.transforms.decode.claims import Header, chunks, read_exactly, unpack
from melmill.transforms.decode.wav_aiff_caf import PLACEHOLDERS, missing_bytes
from melmill.transforms.store.stored_file import StoredFile

#: Identifier of an ASF data object.
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
#: Maximum number of blocks to read in a VOC; the audio of real files is in a few blocks.
_MAX_BLOCKS = 100_000
_AVR_HEADER_BYTES = 128
#: Number of bytes that may be missing: some writers count the 8 header bytes in the size. Eight
#: bytes contain at most 1 ms of audio (8 bits at 8 kHz), and in most formats an index or padding.
_HEAD_BYTES = 8


def read_asf(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an ASF, with the size of its packets.

    The duration is not used: in some files it counts the preroll twice.
    """
    (head_bytes,) = unpack(file, start + 16, "<Q")
    at = start + head_bytes
    if file.read_at(at, 16) != _ASF_DATA:
        return Header("asf")
    return _claim(file, "asf", at, unpack(file, at + 16, "<Q")[0])


def read_avi(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an AVI, with the size of all its parts."""
    end = start
    for name, at, size in chunks(file, start, "<4sI", padding=2):
        if name != b"RIFF" or size in PLACEHOLDERS:
            break
        end = at + size
    return Header("avi", data_end=end, missing=missing_bytes("avi", end, file, _HEAD_BYTES))


def read_iff(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an IFF (8SVX, 16SV), with its size."""
    return _claim(file, "iff", start + 8, unpack(file, start + 4, ">I")[0])


def read_dff(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a DSDIFF, with its size."""
    return _claim(file, "iff", start + 12, unpack(file, start + 4, ">Q")[0])


def read_dsf(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a DSF, with the file size that it claims."""
    return _claim(file, "dsf", start, unpack(file, start + 12, "<Q")[0])


def read_sox(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a file in SoX's own format, with its number of samples."""
    order = "<" if magic.startswith(b".SoX") else ">"
    head_bytes, samples = unpack(file, start + 4, order + "IQ")
    return _claim(file, "sox", start + 4 + head_bytes, 4 * samples, tolerance=0)


def read_avr(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an AVR, with its number of frames."""
    stereo, bits = unpack(file, start + 12, ">HH")
    (frames,) = unpack(file, start + 26, ">I")
    size = frames * (2 if stereo else 1) * (bits // 8)
    return _claim(file, "avr", start + _AVR_HEADER_BYTES, size, tolerance=0)


def read_voc(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a VOC, with the end of its last block."""
    (at,) = unpack(file, start + 20, "<H")
    at += start
    for _ in range(_MAX_BLOCKS):
        kind = file.read_at(at, 1)
        if kind in (b"", b"\0"):  # the end of the file, or a terminator block
            break
        at += 4 + int.from_bytes(read_exactly(file, at + 1, 3), "little")
    return Header("voc", data_end=at, missing=missing_bytes("voc", at, file, _HEAD_BYTES))


def _claim(
    file: StoredFile, container: str, at: int, size: int, tolerance: int = _HEAD_BYTES
) -> Header:
    """Return the header of a file that claims `size` bytes of audio from byte `at` on."""
    if size in PLACEHOLDERS:
        return Header(container)
    end = at + size
    return Header(container, data_end=end, missing=missing_bytes(container, end, file, tolerance))
