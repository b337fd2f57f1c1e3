"""A recording as WAV files that every browser plays, of which any range of bytes can be computed.

A WAV file has a header of 44 bytes and PCM samples of 16 bits, so the place of each frame follows
from its number: a range of bytes is decoded without what is before it. A file cannot exceed 4 GiB,
so a recording is divided into parts of at most an hour.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melmill.pipelines.sound.decoder_pool import intact_blocks, keep_open
from melmill.transforms.core.errors import UserError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import AudioReader
from melmill.transforms.features.chunks import resampled_length
from melmill.transforms.features.decoded_spans import block_frames
from melmill.transforms.features.resample import Conversion, resample_stream
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]
#: Reads the frames of a recording from a first one to an end, in blocks.
ReadBlocks = Callable[[int, int], Iterator[Samples]]

HEADER_BYTES = 44
#: Length of a part.
PART_SECONDS = 3600
#: Sample rates that all browsers play. Recordings with other rates are resampled to the nearest.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8_000, 96_000
_SAMPLE_BYTES = 2
_FULL_SCALE = 32768


@dataclass(frozen=True, slots=True)
class WavFile:
    """A part of a recording as a WAV file.

    The samples are those of the recording, rounded to 16 bits without dither: those of a recording
    with 16 bits do not change. Above full scale they are clipped. NaN and infinity become 0.
    A recording whose rate is below 8 kHz or above 96 kHz is resampled by soxr (HQ).

    Attributes
    ----------
    audio
        Result of the recording's probe.
    part
        Number of the part; the first is 0.
    channel
        Channel to hear; ``None`` for all. Of more than two channels, the mean is heard.

    Raises
    ------
    UserError
        The recording has no such part, or no such channel.

    Examples
    --------
    >>> audio = AudioInfo("wav", "pcm_16", "libsndfile", 44_100, 2, 44_100 * 3_601)
    >>> file = WavFile(audio, part=1)
    >>> file.parts, file.first_frame, file.frames, file.size_bytes
    (2, 158760000, 44100, 176444)
    """

    audio: AudioInfo
    part: int = 0
    channel: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise UserError(f"part {self.part}: the recording has the parts 0 to {self.parts - 1}")
        if self.channel is not None and not 0 <= self.channel < self.audio.channels:
            raise UserError(
                f"channel {self.channel}: the recording has the channels 0 to "
                f"{self.audio.channels - 1}"
            )

    @property
    def rate_hz(self) -> int:
        """Sample rate of the file."""
        return min(HIGHEST_RATE_HZ, max(LOWEST_RATE_HZ, self.audio.sample_rate_hz))

    @property
    def channels(self) -> int:
        """Number of channels of the file: one or two."""
        return 2 if self.channel is None and self.audio.channels == 2 else 1

    @property
    def parts(self) -> int:
        """Number of parts of the recording."""
        return -(-self._total // (PART_SECONDS * self.rate_hz))

    @property
    def _total(self) -> int:
        """Number of frames of all parts."""
        return resampled_length(self.audio.frames, self.audio.sample_rate_hz, self.rate_hz)

    @property
    def first_frame(self) -> int:
        """First frame of the part, at the rate of the file."""
        return self.part * PART_SECONDS * self.rate_hz

    @property
    def frames(self) -> int:
        """Number of frames of the part."""
        return min(PART_SECONDS * self.rate_hz, self._total - self.first_frame)

    @property
    def frame_bytes(self) -> int:
        """Number of bytes of a frame."""
        return _SAMPLE_BYTES * self.channels

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return HEADER_BYTES + self.frames * self.frame_bytes

    def header(self) -> bytes:
        """Return the first 44 bytes: the chunks ``RIFF`` and ``fmt``, and the start of ``data``."""
        data_bytes = self.size_bytes - HEADER_BYTES
        byte_rate = self.rate_hz * self.frame_bytes
        form = struct.pack(
            "<HHIIHH", 1, self.channels, self.rate_hz, byte_rate, self.frame_bytes, 16
        )
        size = HEADER_BYTES - 8 + data_bytes
        riff = struct.pack("<4sI4s4sI", b"RIFF", size, b"WAVE", b"fmt ", 16)
        return riff + form + struct.pack("<4sI", b"data", data_bytes)

    def tag(self, fingerprint: str) -> str:
        """Return a name of the file's bytes, which changes with them (an HTTP entity tag)."""
        return f'"{digest(fingerprint, repr(self))}"'


def read_bytes(reader: AudioReader, file: WavFile, first: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes ``[first, stop)`` of a WAV file.

    Parameters
    ----------
    reader
        Open recording. For NaN and infinity to become 0, it must let them pass.
    file
        File to read from.
    first, stop
        Range of bytes, at most up to the end of the file.

    Raises
    ------
    RecordingError
        The recording cannot be decoded. The bytes before were yielded.
    """
    frames = block_frames(file.audio)
    return _bytes(lambda start, end: reader.blocks(start, end, frames), file, first, stop)


def _bytes(read: ReadBlocks, file: WavFile, first: int, stop: int) -> Iterator[bytes]:
    header = file.header()[first:stop]
    skipped = max(0, first - HEADER_BYTES)
    size = max(0, stop - HEADER_BYTES) - skipped
    if size <= 0:
        yield header
        return
    first_frame, skipped = divmod(skipped, file.frame_bytes)
    stop_frame = first_frame + -(-(skipped + size) // file.frame_bytes)
    for samples in _samples(read, file, first_frame, stop_frame):
        data = to_pcm(samples)[skipped : skipped + size]
        yield header + data  # the header does not come alone, if no sound can be decoded
        header, skipped, size = b"", 0, size - len(data)


def read_bytes_of(source: StoredObject, file: WavFile, first: int, stop: int) -> Iterator[bytes]:
    """Yield bytes of a WAV file; to be called in a decoder process, see :func:`read_bytes`."""
    frame = max(0, first - HEADER_BYTES) // file.frame_bytes
    frames = block_frames(file.audio)
    with keep_open(source, file.audio, _source_range(file, frame, frame + 1)[0]) as reader:

        def read(start: int, end: int) -> Iterator[Samples]:
            return intact_blocks(source, reader, start, end, frames)

        yield from _bytes(read, file, first, stop)


def _samples(
    read: ReadBlocks, file: WavFile, first_frame: int, stop_frame: int
) -> Iterator[Samples]:
    """Yield frames of the file, with the channels of the file: float32 [frames, channels]."""
    start, stop = file.first_frame + first_frame, file.first_frame + stop_frame
    first, last = _source_range(file, first_frame, stop_frame)
    heard = (_heard(block, file) for block in read(first, last))
    return resample_stream(heard, start, stop, _conversion(file))


def _conversion(file: WavFile) -> Conversion:
    return Conversion(file.audio.sample_rate_hz, file.rate_hz)


def _source_range(file: WavFile, first_frame: int, stop_frame: int) -> tuple[int, int]:
    """Return the frames of the recording that are needed for frames of the file."""
    start, stop = file.first_frame + first_frame, file.first_frame + stop_frame
    return _conversion(file).source_range(start, stop, file.audio.frames)


def _heard(block: Samples, file: WavFile) -> Samples:
    samples: Samples = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
    if file.channel is not None:
        return samples[:, [file.channel]]
    return samples if file.audio.channels <= 2 else samples.mean(axis=1, keepdims=True)


def to_pcm(samples: Samples) -> bytes:
    """Return samples as PCM of 16 bits: rounded to even without dither, and clipped.

    >>> np.frombuffer(to_pcm(np.array([0.5, -1, 1], np.float32)), "<i2").tolist()
    [16384, -32768, 32767]
    """
    scaled = np.rint(samples * np.float32(_FULL_SCALE))
    data: bytes = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()
    return data
