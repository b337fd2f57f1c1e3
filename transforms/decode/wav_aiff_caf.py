"""Headers that contain the size of the audio in bytes: WAV, RF64, W64, AIFF, AU, CAF, NIST.

The size may be wrong: a writer that does not know the size leaves a placeholder, a 32-bit
field wraps around at 4 GiB, and a file may be truncated. If the size is wrong but the audio is
in the file, the decoder reads the file with a corrected size.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.claims import Header, chunks, unpack
from melmill.transforms.decode.tag_ranges import audio_end
from melmill.transforms.store.stored_file import Piece, StoredFile

_ALL_ONES = 0xFFFFFFFF
#: Sizes that mean "unknown": a writer leaves them when it writes to a pipe or crashes.
PLACEHOLDERS = frozenset(
    {0, _ALL_ONES, 0x7FFFF000, 0x80000000, 0x7FFFFFFF}
    | {2**64 - 1, 2**63 - 1, 2**63, 0x7FFFFFFFFFFFF000}
)
#: Bytes at the end of a file that are searched for the chunks after audio of unknown length.
_TAIL_BYTES = 1 << 20
#: Names of chunks that were seen after the audio.
_TRAILERS = re.compile(
    rb"LIST|list|id3 |ID3 |bext|cue |smpl|inst|fact|PEAK|iXML|axml|chna|JUNK|junk|PAD |FLLR|_PMX"
    rb"|afsp|plst|DISP|acid|strc|umid|levl|MD5 |cart|NAME|AUTH|\(c\) |ANNO|MARK|INST|COMT|APPL|COMM"
)
_CHUNK_NAME = re.compile(rb"[ -~]{4}")
#: Limits for other data after the claimed audio, in bytes and as a share of the audio. Only data
#: that exceeds both limits can be audio.
_STRAY_BYTES, _STRAY_SHARE = 4096, 1 / 8
#: Tags of MPEG audio in the ``fmt`` chunk of a WAV.
_MPEG_TAGS = frozenset({0x50, 0x55})


@dataclass(frozen=True, slots=True)
class _Size:
    """The field of a container that contains the size of its audio.

    Attributes
    ----------
    at, form
        Position of the field, and its :mod:`struct` format.
    surplus
        Number of bytes that the field counts in addition to the audio.
    head, padding
        :mod:`struct` format of the headers of chunks after the audio, and the multiple to which
        chunk sizes are rounded up; ``""`` if the format has no such chunks.
    """

    at: int
    form: str
    surplus: int = 0
    head: str = ""
    padding: int = 1

    def pack(self, size: int) -> bytes:
        """Return the field for a size; the largest possible number if the size does not fit."""
        largest = (1 << 8 * struct.calcsize(self.form)) - 1
        return struct.pack(self.form, min(size + self.surplus, largest))


def read_wave(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a WAV or RF64."""
    container = "wav" if magic.startswith(b"RIFF") else "rf64"
    tag = rate = channels = size64_at = None
    for name, at, size in chunks(file, start + 12, "<4sI", padding=2):
        if name == b"fmt ":
            tag, channels, rate = unpack(file, at, "<HHI")
        elif name == b"ds64":
            size64_at = at + 8
        elif name == b"data":
            field = _Size(at - 4, "<I", head="<4sI", padding=2)
            if container == "rf64" and size == _ALL_ONES and size64_at is not None:
                field = _Size(size64_at, "<Q", head="<4sI", padding=2)
                (size,) = unpack(file, size64_at, "<Q")
            header = Header(container, rate, channels)
            if tag in _MPEG_TAGS:
                header = Header(container, irregularity="a WAV file that contains MPEG audio")
            return _measure(file, header, at, size, field)
    return Header(container, rate, channels)


def read_wave64(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a W64."""
    rate = channels = None
    for name, at, size in chunks(file, start + 40, "<16sQ", padding=8, counts_itself=True):
        if name.startswith(b"fmt "):
            channels, rate = unpack(file, at + 2, "<HI")
        elif name.startswith(b"data"):
            field = _Size(at - 8, "<Q", surplus=24, head="<16sQ", padding=8)
            return _measure(file, Header("w64", rate, channels), at, max(0, size), field)
    return Header("w64", rate, channels)


def read_aiff(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an AIFF or AIFF-C."""
    rate = channels = audio_chunk = None
    for name, at, size in chunks(file, start + 12, ">4sI", padding=2):
        if name == b"COMM":
            channels, _, _, *extended = unpack(file, at, ">HIHHQ")
            rate = _from_extended(*extended)
        elif name == b"SSND":
            audio_chunk = at, size
        if audio_chunk and (rate is not None or audio_chunk[1] in PLACEHOLDERS):
            break
    header = Header("aiff", rate, channels)
    if audio_chunk is None:
        return header
    field = _Size(audio_chunk[0] - 4, ">I", head=">4sI", padding=2)
    return _measure(file, header, *audio_chunk, field)


def _from_extended(exponent: int, mantissa: int) -> int:
    """Return the integer part of an 80-bit float; 0 if it is not a possible sample rate.

    >>> _from_extended(0x400E, 0xAC44 << 48)
    44100
    """
    shift = 63 + 16383 - exponent
    return mantissa >> shift if 0 <= shift < 64 else 0


def read_au(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of an AU, in either byte order."""
    order = ">" if magic.startswith(b".snd") else "<"
    at, size, _, rate, channels = unpack(file, start + 4, order + "5I")
    header = Header("au", rate, channels)
    return _measure(file, header, start + at, size, _Size(start + 8, order + "I"))


def read_caf(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a CAF."""
    rate = channels = None
    for name, at, size in chunks(file, start + 8, ">4sq"):
        if name == b"desc":
            claimed, channels = unpack(file, at, ">d16xI")
            rate = int(claimed) if abs(claimed) < 2**63 else 0
        elif name == b"data":
            header = Header("caf", rate, channels)
            if size == -1:  # in this format: audio up to the end of the file
                return header
            return _measure(file, header, at, size % 2**64, _Size(at - 8, ">q", head=">4sq"))
    return Header("caf", rate, channels)


#: Largest header of a NIST file that is read: the usual size is 1,024 bytes.
_MAX_NIST_BYTES = 1 << 16


def _nist_lines(file: StoredFile, start: int, size: int) -> list[str]:
    return file.read_at(start, size).decode("ascii", "replace").splitlines()


def read_nist(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a NIST SPHERE file."""
    lines = _nist_lines(file, start, 1024)
    size = lines[1].strip() if len(lines) > 1 else ""
    if size.isdecimal() and 1024 < int(size) <= _MAX_NIST_BYTES:
        lines = _nist_lines(file, start, int(size))
    words = [line.split() for line in lines[2:]]
    fields = {word[0]: word[2] for word in words if len(word) == 3}
    names = ("channel_count", "sample_n_bytes", "sample_rate")
    numbers = [fields.get(name, "") for name in names]
    if not all(map(str.isdecimal, [*numbers, *map(str.strip, lines[1:2] or [""])])):
        return Header("nist", irregularity="a NIST header that lacks a field")
    channels, width, rate = map(int, numbers)
    count = fields.get("sample_count", "")
    if not count.isdecimal() or int(count) in PLACEHOLDERS:
        irregularity = "a NIST header that does not count its samples"
        return Header("nist", rate, channels, irregularity=irregularity)
    end = start + int(lines[1]) + int(count) * channels * width
    return Header("nist", rate, channels, end, missing=missing_bytes("nist", end, file))


def _measure(file: StoredFile, header: Header, at: int, size: int, field: _Size) -> Header:
    """Return the header with the claimed size of the audio at byte `at` checked or corrected."""
    container, mended = header.container, ""
    available, end = max(0, file.size_bytes - at), at + size
    if size == 0 or (size > available and size + field.surplus in PLACEHOLDERS):
        end = _find_audio_end(file, at, field)
        claim = "no audio" if size == 0 else f"the placeholder {size} as its size"
        if end > at:
            mended = f"a {container} header that declares {claim}"
    elif size <= available and _audio_follows(file, at, end, field):
        end = _find_audio_end(file, end, field)
        mended = f"a {container} header that declares {size} bytes, but the file has {end - at}"
    if not mended:
        return replace(header, data_end=end, missing=missing_bytes(container, end, file))
    rest = field.at + struct.calcsize(field.form)
    pieces: tuple[Piece, ...] = ((0, field.at), field.pack(end - at), (rest, end))
    return replace(header, data_end=end, mended=mended, pieces=pieces)


def missing_bytes(container: str, end: int, file: StoredFile, tolerance: int = 0) -> str:
    """Return a message about missing bytes if audio ends at byte `end`; ``""`` if none are."""
    if end <= file.size_bytes + tolerance:
        return ""
    return (
        f"the {container} header declares audio up to byte {end}, "
        f"but the file ends at byte {file.size_bytes}"
    )


def _audio_follows(file: StoredFile, at: int, end: int, field: _Size) -> bool:
    """Return whether the data after the claimed audio is also audio.

    Chunks, tags, zeros and small amounts of other data do not count as audio.

    Raises
    ------
    RecordingError
        ``corrupt``: another file of the same format follows.
    """
    position = end + -(end - at) % field.padding
    if position >= file.size_bytes:
        return False
    if field.head:
        if _TRAILERS.match(file.read_at(end, 4)):
            position = end  # some writers do not pad
        counts_itself = field.surplus > 0
        for name, inside, size in chunks(file, position, field.head, field.padding, counts_itself):
            if _TRAILERS.match(name) and size > file.size_bytes - inside:
                return False  # a truncated chunk
            if not _CHUNK_NAME.match(name) or not 0 <= size <= file.size_bytes - inside:
                break
            if name in (b"RIFF", b"RF64", b"FORM", b"caff"):
                message = f"another file begins at byte {inside - 8}, after the audio"
                raise RecordingError(Stage.PROBE, Cause.CORRUPT, message)
            position = inside + size + -size % field.padding
    if position >= file.size_bytes:
        return False
    stray = audio_end(file, position) - position
    if stray <= max(_STRAY_BYTES, _STRAY_SHARE * (end - at)):
        return False
    return any(file.read_at(position, _STRAY_BYTES))


def _find_audio_end(file: StoredFile, at: int, field: _Size) -> int:
    """Return the end of audio of unknown length: the first chunk after it, or the file's end."""
    stop = max(at, audio_end(file, at))
    if not field.head:
        return stop
    origin = max(at, stop - _TAIL_BYTES)
    tail = file.read_at(origin, stop - origin)
    dead_ends: set[int] = set()  # positions whose chunks do not lead to the end of the file
    for match in _TRAILERS.finditer(tail):
        position, visited = match.start(), []
        while position < len(tail) and position not in dead_ends:
            visited.append(position)
            try:
                name, size = struct.unpack_from(field.head, tail, position)
            except struct.error:
                break
            if not _TRAILERS.match(name) or size < field.surplus:
                break
            size -= field.surplus
            position += struct.calcsize(field.head) + size + -size % field.padding
        if position in (len(tail), len(tail) + 1):
            return origin + match.start()
        dead_ends.update(visited)
    return stop
