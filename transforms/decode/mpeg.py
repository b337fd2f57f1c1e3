"""MPEG audio (MP1, MP2, MP3): the length in the first frame is compared with the file's length.

An MP3 has no file header. Encoders write the length into a silent first frame (the Xing or
Info tag). If the tag is missing or counts only a part of the file, libsndfile guesses the
length and loses the audio beyond it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.tag_ranges import audio_end, is_tag_before, skip_tag
from melmill.transforms.store.stored_file import Piece, StoredFile

_KBITS: dict[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44100, 48000, 32000)
#: Maximum number of zero bytes that are skipped before the first frame.
_MAX_JUNK_BYTES = 1 << 16
#: Samples before the sound of an MP3 begins: those of the tag's frame and of the encoder's delay.
_MP3_START = 2 * 1152 + 1105
#: Number of consecutive frames that identify an MPEG stream.
_CONVINCING = 3
#: Bytes per read in the search for a frame, and additional bytes for a few of the largest frames.
_BLOCK_BYTES, _MARGIN_BYTES = 1 << 16, 1 << 14
#: Maximum size of a tag that is searched for bytes that look like frames.
_MOST_TAG_BYTES = 1 << 24
#: First bytes of a frame's header, as accepted by :func:`parse_frame`.
_HEADS = re.compile(rb"\xff(?=[\xe2-\xe7\xf2-\xff][\x10-\xef])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MpegFrame:
    """The header of one frame.

    Attributes
    ----------
    is_mpeg1
        Whether the version is MPEG-1; otherwise it is MPEG-2 or 2.5, where a layer III frame
        has half the samples.
    layer
        Layer: 1, 2 or 3.
    sample_rate_hz, channels
        Sample rate and number of channels.
    size_bytes
        Number of bytes from this header to the next.
    """

    is_mpeg1: bool
    layer: int
    sample_rate_hz: int
    channels: int
    size_bytes: int

    @property
    def samples(self) -> int:
        """Number of samples per channel."""
        if self.layer == 1:
            return 384
        return 1152 if self.layer == 2 or self.is_mpeg1 else 576

    @property
    def kind(self) -> tuple[bool, int, int]:
        """Properties that all frames of a stream share: version, layer and sample rate."""
        return self.is_mpeg1, self.layer, self.sample_rate_hz

    @property
    def tag_offset(self) -> int:
        """Offset of a Xing tag in the frame: after the side information."""
        if self.is_mpeg1:
            return 36 if self.channels == 2 else 21
        return 21 if self.channels == 2 else 13


def parse_frame(head: bytes) -> MpegFrame | None:
    """Return a frame's header; ``None`` if the four bytes are not a frame's header.

    Examples
    --------
    >>> parse_frame(bytes.fromhex("fffb9064"))
    MpegFrame(is_mpeg1=True, layer=3, sample_rate_hz=44100, channels=2, size_bytes=417)
    >>> parse_frame(b"Text") is None
    True
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    is_mpeg1, padding = version == 3, head[2] >> 1 & 1
    rate_hz = _RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _KBITS[is_mpeg1, layer][bitrate - 1] * 1000
    channels = 1 if head[3] >> 6 == 3 else 2
    return MpegFrame(
        is_mpeg1, layer, rate_hz, channels, _size(is_mpeg1, layer, bits, rate_hz, padding)
    )


def _size(is_mpeg1: bool, layer: int, bits: int, rate_hz: int, padding: int) -> int:
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    slots = 144 if is_mpeg1 or layer == 2 else 72
    return slots * bits // rate_hz + padding


def read_mpeg(file: StoredFile, start: int) -> Header:
    """Return the header of an MPEG stream, with the length in its tag checked against the file.

    If libsndfile would not decode the whole file, the file is read frame by frame. The
    decoder then reads only the frames, without any other data.

    Raises
    ------
    RecordingError
        ``truncated``: the file ends within the tag.
    """
    first = start
    frame = parse_frame(file.read_at(start, 4))
    # A file that begins with other bytes may be a film with MPEG audio inside.
    if frame is None and not any(file.read_at(start, 4)):
        first = _find_frame(file, start, _MAX_JUNK_BYTES)
        if first >= 0 and not any(file.read_at(start, first - start)):
            frame = parse_frame(file.read_at(first, 4))
    if frame is None:
        return Header()
    irregularity, missing = _check_length(file, first, frame)
    mended = f"an MP3 after {first - start} zero bytes" if first > start else ""
    pieces: tuple[Piece, ...] = ()
    damage = None
    if irregularity or mended:
        stream = walk(file, first)
        if len(stream.ranges) > 1 or stream.ranges[-1][1] < stream.end:
            mended = mended or "an MP3 with other data between or after its frames"
        if mended:
            pieces = (0, start), *stream.ranges
        damage = stream.damage
    return Header(
        "mp3",
        frame.sample_rate_hz,
        frame.channels,
        irregularity=irregularity,
        missing=missing,
        mended=mended,
        pieces=pieces,
        damage=damage,
    )


def _check_length(file: StoredFile, start: int, frame: MpegFrame) -> tuple[str, str]:
    """Compare the length in the first frame's tag with the file's length.

    Returns
    -------
    (irregularity, missing)
        Reason why libsndfile would not decode the whole file, and description of the missing
        bytes if more than a frame is missing; ``""`` if there is none.
    """
    head = file.read_at(start, frame.tag_offset + 16)[frame.tag_offset :]
    if frame.layer != 3 or head[:4] not in (b"Xing", b"Info"):
        return "an MP3 without a Xing or Info tag", ""
    if len(head) < 16:
        message = f"the file ends at byte {file.size_bytes}, within the MP3's Xing or Info tag"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    flags, frames, claimed = struct.unpack(">4xIII", head)
    if flags & 3 != 3 or claimed == 0 or frames == 0:
        return "an MP3 whose tag does not give its length", ""
    surplus = audio_end(file, start + frame.size_bytes) - start - claimed
    if surplus < -frame.size_bytes:
        message = f"the MP3's tag counts {claimed} bytes, but {-surplus} of them are missing"
        return "an MP3 that is cut", message
    # Some encoders do not count the tag's own frame.
    if not 0 <= surplus <= frame.size_bytes:
        actual = claimed + surplus
        return f"an MP3 whose tag counts {claimed} bytes, but the file has {actual}", ""
    if head.startswith(b"Info"):  # all frames are of one size, up to a byte of padding
        audio = parse_frame(file.read_at(start + frame.size_bytes, 4)) or frame
        if abs(claimed - frames * audio.size_bytes) > frames + 2 * frame.size_bytes:
            return f"an MP3 whose tag counts {frames} frames in {claimed} bytes", ""
    return "", ""


@dataclass(slots=True)
class Walk:
    """The result of reading all frames of a file.

    Attributes
    ----------
    ranges
        Byte ranges of consecutive frames.
    end
        End of the audio: the start of the tags at the end of the file.
    samples
        Samples per channel in all frames, including a first frame that contains the tag.
    hole
        Position ``(samples, byte)`` of missing frames: the data there is not a tag, and the
        stream continues after it. ``None`` if there is no such position.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    samples: int = 0
    hole: tuple[int, int] | None = None

    @property
    def damage(self) -> tuple[int, str] | None:
        """Number of frames that decode before the hole, and a description of the damage."""
        if self.hole is None:
            return None
        samples, at = self.hole
        return max(0, samples - _MP3_START), f"the data at byte {at} is neither a frame nor a tag"

    def add(self, begin: int, end: int) -> None:
        """Add a range; extend the last range if this range follows it directly."""
        if self.ranges and self.ranges[-1][1] == begin:
            begin = self.ranges.pop()[0]
        if end > begin:
            self.ranges.append((begin, end))


class _Blocks:
    """Reads headers of frames through a buffer of consecutive blocks.

    A remote store needs few requests, because each block begins where the previous block ends.
    """

    def __init__(self, file: StoredFile) -> None:
        self._file, self._start, self._data = file, 0, b""

    def head(self, at: int) -> bytes:
        """Return the four bytes at a position."""
        offset = at - self._start
        if not 0 <= offset <= len(self._data) - 4:
            self._read(at)
            offset = 0
        return self._data[offset : offset + 4]

    def _read(self, at: int) -> None:
        stop = self._start + len(self._data)
        follows = at - self._start >= 0 and at - stop < _MARGIN_BYTES
        first = stop if follows else at
        data = self._data[at - self._start :] if follows else b""
        block = self._file.read_at(first, _BLOCK_BYTES)
        self._data = data + block[max(0, at - first) :]
        self._start = at


def walk(file: StoredFile, at: int) -> Walk:
    """Return the result of reading a file frame by frame, from the frame at byte `at` on."""
    first = parse_frame(file.read_at(at, 4))
    stream = Walk(end=audio_end(file, at + (first.size_bytes if first else 0)))
    blocks = _Blocks(file)
    parse = lru_cache(maxsize=256)(parse_frame)  # a stream has only a few different headers
    while 0 <= at < stream.end:
        begin = at
        while at < stream.end and (frame := parse(blocks.head(at))):
            stream.samples += frame.samples
            at = min(at + frame.size_bytes, stream.end)
        next_at = min(skip_tag(file, at), stream.end)
        if next_at > at and not _contains_frame(file, at, next_at, first):
            stream.add(begin, next_at)  # a decoder skips such a tag itself
        else:
            stream.add(begin, at)
        if next_at == at < stream.end:
            next_at = _find_frame(file, at, stream.end - at)
            if stream.samples and not stream.hole and _continues_stream(file, at, next_at):
                stream.hole = stream.samples, at
        at = next_at
    return stream


def _continues_stream(file: StoredFile, hole_at: int, frame_at: int) -> bool:
    """Return whether the frame at byte `frame_at` belongs to the stream before the hole.

    The first frame of a new stream needs no bits of earlier frames. An encoder with a bit
    reservoir writes few other frames like that: none in 20 s of LAME below 320 kbit/s.
    """
    head = file.read_at(frame_at, 8)
    frame = parse_frame(head)
    if frame is None:  # no frame follows the hole
        return False
    side = head[4:] if head[1] & 1 else head[6:]  # side information, after an optional checksum
    reach = side[0] << 1 | side[1] >> 7 if frame.is_mpeg1 else side[0]
    return (frame.layer != 3 or reach > 0) and not is_tag_before(file, hole_at, frame_at)


def _contains_frame(file: StoredFile, at: int, end: int, like: MpegFrame | None) -> bool:
    """Return whether a tag contains bytes (of a picture) that look like a frame of the stream.

    A tag that is too large to be searched counts as containing a frame.
    """
    if end - at > _MOST_TAG_BYTES:
        return True
    while at < end:
        data = file.read_at(at, min(_BLOCK_BYTES, end - at))
        for match in _HEADS.finditer(data):
            frame = parse_frame(data[match.start() : match.start() + 4])
            if frame and like and frame.kind == like.kind:
                return True
        at += max(1, len(data) - 3)
    return False


def _find_frame(file: StoredFile, at: int, most_bytes: int) -> int:
    """Return the next byte where consecutive frames of one kind begin; -1 if there are none."""
    stop = min(file.size_bytes, at + most_bytes)
    while at < stop:
        data = file.read_at(at, _BLOCK_BYTES + _MARGIN_BYTES)
        for match in _HEADS.finditer(data, 0, min(stop - at, _BLOCK_BYTES) + 2):
            if _begins_stream(data, match.start(), at + len(data) == file.size_bytes):
                return at + match.start()
        at += min(len(data), _BLOCK_BYTES) or 1
    return -1


def _begins_stream(data: bytes, at: int, is_last: bool) -> bool:
    kinds: list[tuple[bool, int, int]] = []
    while len(kinds) < _CONVINCING and (frame := parse_frame(data[at : at + 4])):
        kinds.append(frame.kind)
        at += frame.size_bytes
    enough = len(kinds) == _CONVINCING or (len(kinds) > 1 and is_last and at == len(data))
    return enough and len(set(kinds)) == 1
