"""FLAC headers: the length in the header is compared with the number of the last frame.

Each frame contains its number. The number of the last frame gives the length of the stream.
This costs one read at the end of the file.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from melmill.transforms.decode.claims import Header, read_exactly
from melmill.transforms.decode.tag_ranges import audio_end
from melmill.transforms.store.stored_file import StoredFile

#: Limits for the part at the end of the file that is searched for frames. The part is as long as
#: two of the largest frames, within these limits.
_LEAST_TAIL_BYTES, _MOST_TAIL_BYTES = 1 << 14, 1 << 18
_BLOCKS = (0, 192, 576, 1152, 2304, 4608, 0, 0, *(256 << n for n in range(8)))
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_CRC8 = [0] * 256
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value << 1 ^ (0x07 if _value & 0x80 else 0)) & 0xFF
    _CRC8[_byte] = _value


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a frame.

    Attributes
    ----------
    is_variable
        Whether `number` counts samples; otherwise it counts frames.
    number
        Number of the frame's first sample, or of the frame.
    samples
        Samples per channel in the frame.
    """

    is_variable: bool
    number: int
    samples: int


def read_flac(file: StoredFile, start: int, magic: bytes) -> Header:
    """Return the header of a FLAC stream, with its length checked against the last frame."""
    info = read_exactly(file, start + 4, 38)
    largest = int.from_bytes(info[11:14], "big")
    (packed,) = struct.unpack_from(">Q", info, 14)
    rate, channels, frames = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    irregularity = missing = ""
    if not frames:
        # An encoder that cannot seek back to the start of its output leaves the length at 0.
        irregularity = "a FLAC stream that does not say its length"
    else:
        counted = _count(file, start + 42, largest)
        if counted is not None and counted != frames:
            irregularity = f"a FLAC header that counts {frames} frames, but the file has {counted}"
            if counted < frames:
                missing = f"the header counts {frames} frames, but the file ends at frame {counted}"
    claimed = frames if missing else None
    return Header("flac", rate, channels, None, irregularity, claimed, missing)


def _count(file: StoredFile, start: int, largest: int) -> int | None:
    """Return the number of samples up to the end of the last frame.

    ``None`` if no frame is found, or if other data follows the last frame.
    """
    end = audio_end(file, start)
    tail_bytes = min(max(_LEAST_TAIL_BYTES, 2 * largest + 64), _MOST_TAIL_BYTES)
    origin = max(start, end - tail_bytes)
    data = file.read_at(origin, end - origin)
    counted, position = None, 0
    samples: dict[int, int] = {}  # samples of each frame, by number, if numbers count frames
    ends: set[int] = set()  # end of each frame, if numbers count samples
    for sync in _SYNC.finditer(data):
        if frame := parse_frame(data[sync.start() : sync.start() + 16]):
            # Once in millions of bytes, noise looks like a frame, but without a frame before it.
            number, block = frame.number, samples.get(frame.number - 1, 0)
            if number == 0 or (number in ends if frame.is_variable else block):
                first = number if frame.is_variable else number * block
                counted, position = first + frame.samples, sync.start()
            if frame.is_variable:
                ends.add(number + frame.samples)
            else:
                samples[number] = frame.samples
    if 0 < largest < len(data) - position:
        return None  # other data follows the last frame
    return counted


def parse_frame(head: bytes) -> Frame | None:
    """Return a frame's header; ``None`` if the bytes are not a frame's header.

    Examples
    --------
    >>> parse_frame(bytes.fromhex("fff8c9180 0c2".replace(" ", "")))
    Frame(is_variable=False, number=0, samples=4096)
    """
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    extra = max(0, 7 - (~head[4] & 0xFF).bit_length() if head[4] & 0x80 else 0)
    at = 5 + extra
    number = _number(head[4:at])
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    at_crc = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if number is None or len(head) <= at_crc or _crc8(head[:at_crc]) != head[at_crc]:
        return None
    explicit = int.from_bytes(head[at : at + size_bytes], "big") + 1
    return Frame(bool(head[1] & 1), number, explicit if size_bytes else _BLOCKS[size_code])


def _number(code: bytes) -> int | None:
    """Return a number of up to 36 bits that is encoded as in UTF-8; ``None`` if invalid."""
    if len(code) == 1:
        return code[0] if code[0] < 0x80 else None
    if code[0] == 0xFF or any(byte >> 6 != 2 for byte in code[1:]):
        return None
    number = code[0] & (0x7F >> len(code))
    for byte in code[1:]:
        number = number << 6 | byte & 0x3F
    return number


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
