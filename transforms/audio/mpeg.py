"""MPEG audio (MP1, MP2, MP3): the length its first frame claims against the file's.

An MP3 has no header of its own. Encoders put the length into a silent first frame (the
Xing or Info tag); where that is missing or counts only a part of the file, libsndfile
guesses the length and loses what lies beyond its guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from transforms.errors import Cause, RecordingError, Stage
from transforms.storage.stored_file import StoredFile

_KBITS: dict[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44100, 48000, 32000)
#: Tags before the audio that are skipped; real files have one or two.
_MAX_TAGS = 16


@dataclass(frozen=True, slots=True)
class MpegFrame:
    """The header of one frame.

    Attributes
    ----------
    is_mpeg1
        MPEG-1; else MPEG-2 or 2.5, with half the samples in a layer III frame.
    layer
        1, 2 or 3.
    size_bytes
        From this header to the next.
    """

    is_mpeg1: bool
    layer: int
    sample_rate_hz: int
    channels: int
    size_bytes: int

    @property
    def tag_offset(self) -> int:
        """Where a Xing tag lies in the frame: after the side information."""
        if self.is_mpeg1:
            return 36 if self.channels == 2 else 21
        return 21 if self.channels == 2 else 13


def parse_frame(head: bytes) -> MpegFrame | None:
    """Parse a frame's four-byte header; ``None`` if it is none.

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


def skip_id3v2(file: StoredFile) -> int:
    """Find the first byte after the ID3v2 tags at the start of a file."""
    at = 0
    for _ in range(_MAX_TAGS):
        head = file.read_at(at, 10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            break
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return at


def check_length(file: StoredFile, start: int, frame: MpegFrame) -> str:
    """Hold the length in the first frame's tag against the file's.

    Returns
    -------
    str
        Why libsndfile would not decode all of this file; ``""`` if it would.

    Raises
    ------
    RecordingError
        ``truncated``: more than a frame is missing from what the tag counts.
    """
    head = file.read_at(start, frame.tag_offset + 16)[frame.tag_offset :]
    if frame.layer != 3 or head[:4] not in (b"Xing", b"Info"):
        return "an MP3 without a Xing or Info tag"
    flags, _, claimed = struct.unpack(">4xIII", head)
    if flags & 3 != 3 or claimed == 0:
        return "an MP3 whose tag does not give its length"
    surplus = _audio_end(file) - start - claimed
    if surplus < -frame.size_bytes:
        message = f"the MP3's tag counts {claimed} bytes, {-surplus} of them are missing"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    # Some encoders leave the tag's own frame out of the count.
    if not 0 <= surplus <= frame.size_bytes:
        return f"an MP3 whose tag counts {claimed} bytes, where {claimed + surplus} are"
    return ""


def _audio_end(file: StoredFile) -> int:
    """The first byte of the tags at the end: ID3v1, then APEv2 or Lyrics3 before it."""
    end = file.size_bytes
    if file.read_at(max(0, end - 128), 3) == b"TAG":
        end -= 128
    foot = file.read_at(max(0, end - 32), 32)
    if foot.startswith(b"APETAGEX"):
        size, _, flags = struct.unpack_from("<III", foot, 12)
        return max(0, end - int(size) - (32 if flags >> 31 else 0))
    if foot.endswith(b"LYRICS200") and foot[-15:-9].isdigit():
        return max(0, end - int(foot[-15:-9]) - 15)
    return end
