"""What a file's first bytes claim, held against the bytes that are there.

Decoders shrink a truncated recording to what is left of it, stop at the end of the first
of several joined streams, and believe impossible numbers. So the claims are read here,
byte by byte, before a decoder sees the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from transforms.audio import mpeg, ogg
from transforms.errors import Cause, RecordingError, Stage
from transforms.storage.stored_file import StoredFile

#: Chunks looked at in search of the audio; real files have a dozen.
_MAX_CHUNKS = 1000
#: The size that writers put where they cannot know it (a pipe).
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Header:
    """What a file claims to hold; ``None`` where it does not say.

    Attributes
    ----------
    container
        Lower-case name of the format; ``""`` where its first bytes are not known here.
    sample_rate_hz, channels
        As claimed, plausible or not.
    data_end
        Where the audio's last byte would be, counted from the start of the file.
    irregularity
        Why libsndfile would lose some of this file's audio; ``""`` where it would not.
    frames
        What a complete decode of an irregular file must give, where that can be known.
    """

    container: str = ""
    sample_rate_hz: int | None = None
    channels: int | None = None
    data_end: int | None = None
    irregularity: str = ""
    frames: int | None = None


def read_header(file: StoredFile) -> Header:
    """Read what a file claims, and check that the claimed bytes are there.

    Parameters
    ----------
    file
        Read in a few small ranges, whatever its size; only a chained Ogg stream is read
        page by page.

    Returns
    -------
    Header

    Raises
    ------
    RecordingError
        ``truncated``: the file ends before the audio that its header declares.
    """
    start = mpeg.skip_id3v2(file)
    magic = file.read_at(start, 16)
    for matches, read in _READERS:
        if any(magic[at : at + len(word)] == word for at, word in matches):
            header = read(file, start, magic)
            break
    else:
        header = _read_mpeg(file, start)
    _require_bytes(header, file.size_bytes)
    return header


def _require_bytes(header: Header, size_bytes: int) -> None:
    if header.data_end is not None and header.data_end > size_bytes:
        message = (
            f"the {header.container} header declares audio up to byte {header.data_end}, "
            f"the file ends at byte {size_bytes}"
        )
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)


def _read_wave(file: StoredFile, start: int, magic: bytes) -> Header:
    container = "wav" if magic.startswith(b"RIFF") else "rf64"
    rate = channels = data_bytes = None
    for name, at, size in _chunks(file, start + 12, "<4sI", padding=2):
        if name == b"fmt ":
            channels, rate = struct.unpack("<HI", _exactly(file, at + 2, 6))
        elif name == b"ds64":
            (data_bytes,) = struct.unpack("<Q", _exactly(file, at + 8, 8))
        elif name == b"data":
            if container == "rf64" and size == _UNKNOWN_SIZE and data_bytes is not None:
                size = data_bytes
            forgotten = _forgotten_size(at, size, file.size_bytes)
            return Header(container, rate, channels, at + size, irregularity=forgotten)
    return Header(container, rate, channels)


def _forgotten_size(at: int, size: int, size_bytes: int) -> str:
    """A writer that was cut short, or wrote to a pipe, may have left the size at 0."""
    return "a wav header that declares no audio" if size == 0 and size_bytes > at else ""


def _read_wave64(file: StoredFile, start: int, magic: bytes) -> Header:
    rate = channels = None
    for name, at, size in _chunks(file, start + 40, "<16sQ", padding=8, counts_itself=True):
        if name.startswith(b"fmt "):
            channels, rate = struct.unpack("<HI", _exactly(file, at + 2, 6))
        elif name.startswith(b"data"):
            return Header("w64", rate, channels, at + size)
    return Header("w64", rate, channels)


def _read_aiff(file: StoredFile, start: int, magic: bytes) -> Header:
    rate = channels = end = None
    for name, at, size in _chunks(file, start + 12, ">4sI", padding=2):
        if name == b"COMM":
            channels, _, _, *extended = struct.unpack(">HIHHQ", _exactly(file, at, 18))
            rate = _from_extended(*extended)
        elif name == b"SSND":
            end = at + size
        if rate is not None and end is not None:
            break
    return Header("aiff", rate, channels, end)


def _from_extended(exponent: int, mantissa: int) -> int:
    """The whole part of an 80-bit float; 0 where it is far beyond any rate.

    >>> _from_extended(0x400E, 0xAC44 << 48)
    44100
    """
    shift = 63 + 16383 - exponent
    return mantissa >> shift if 0 <= shift < 64 else 0


def _read_au(file: StoredFile, start: int, magic: bytes) -> Header:
    order = ">" if magic.startswith(b".snd") else "<"
    at, size, _, rate, channels = struct.unpack(order + "5I", _exactly(file, start + 4, 20))
    end = None if size == _UNKNOWN_SIZE else start + at + size
    return Header("au", rate, channels, end)


def _read_caf(file: StoredFile, start: int, magic: bytes) -> Header:
    rate = channels = None
    for name, at, size in _chunks(file, start + 8, ">4sq"):
        if name == b"desc":
            claimed, channels = struct.unpack(">d16xI", _exactly(file, at, 28))
            rate = int(claimed) if abs(claimed) < 2**63 else 0
        elif name == b"data":
            return Header("caf", rate, channels, None if size < 0 else at + size)
    return Header("caf", rate, channels)


def _read_nist(file: StoredFile, start: int, magic: bytes) -> Header:
    lines = file.read_at(start, 1024).decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines[2:]]
    fields = {word[0]: word[2] for word in words if len(word) == 3}
    names = ("sample_count", "channel_count", "sample_n_bytes", "sample_rate")
    numbers = [fields.get(name, "") for name in names]
    if not all(map(str.isdecimal, [*numbers, lines[1].strip()])):
        return Header("nist")
    count, channels, width, rate = map(int, numbers)
    end = start + int(lines[1]) + count * channels * width
    return Header("nist", rate, channels, end)


def _read_flac(file: StoredFile, start: int, magic: bytes) -> Header:
    (packed,) = struct.unpack(">Q", _exactly(file, start + 18, 8))
    rate, channels, frames = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    # What an encoder leaves that cannot go back to the start of its output.
    irregularity = "" if frames else "a FLAC stream that does not say its length"
    return Header("flac", rate, channels, irregularity=irregularity)


def _read_ogg(file: StoredFile, start: int, magic: bytes) -> Header:
    irregularity, frames = ogg.check_pages(file, start)
    return Header("ogg", irregularity=irregularity, frames=frames)


def _read_mpeg(file: StoredFile, start: int) -> Header:
    frame = mpeg.parse_frame(file.read_at(start, 4))
    if frame is None:
        return Header()
    irregularity = mpeg.check_length(file, start, frame)
    return Header("mp3", frame.sample_rate_hz, frame.channels, irregularity=irregularity)


_READERS = (
    (((0, b"RIFF"),), _read_wave),
    (((0, b"RF64"), (0, b"BW64")), _read_wave),
    (((0, b"riff\x2e\x91\xcf\x11"),), _read_wave64),
    (((8, b"AIFF"), (8, b"AIFC")), _read_aiff),
    (((0, b".snd"), (0, b"dns.")), _read_au),
    (((0, b"caff"),), _read_caf),
    (((0, b"NIST_1A\n"),), _read_nist),
    (((0, b"fLaC"),), _read_flac),
    (((0, b"OggS"),), _read_ogg),
)


def _chunks(
    file: StoredFile, at: int, head: str, padding: int = 1, counts_itself: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """The name, place and size of one chunk after another."""
    head_bytes = struct.calcsize(head)
    for _ in range(_MAX_CHUNKS):
        found = file.read_at(at, head_bytes)
        if len(found) < head_bytes:
            return
        name, size = struct.unpack(head, found)
        size -= head_bytes if counts_itself else 0
        yield name, at + head_bytes, size
        if size < 0:
            return
        at += head_bytes + size + -size % padding


def _exactly(file: StoredFile, at: int, size: int) -> bytes:
    data = file.read_at(at, size)
    if len(data) < size:
        message = f"the header needs {size} bytes at byte {at}, the file ends at {file.size_bytes}"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    return data
