"""Recordings opened: what their headers say, and their samples as float32 blocks.

libsndfile reads what it reads whole; PyAV (FFmpeg) reads the rest. Which of them does is
decided once, by the probe, so that every read of a recording gives the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.damage import find_damage
from melmill.transforms.decode.decoders import library, mended, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.reading import Reader
from melmill.transforms.decode.streams import count_frames
from melmill.transforms.store.objects import StoredObject, hash_content
from melmill.transforms.store.stored_file import StoredFile


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What a header may claim and still be believed.

    Attributes
    ----------
    max_frames_per_byte
        Silence of hours fits into a few kilobytes; two milliards of frames do not fit
        into a hundred bytes. Opus and FLAC were seen to reach 3,000 to 6,000.
    """

    max_channels: int = 64
    min_sample_rate_hz: int = 500
    max_sample_rate_hz: int = 768_000
    max_frames: int = 2**40
    max_frames_per_byte: int = 8192


class AudioReader(Protocol):
    """An open recording."""

    audio: AudioInfo

    def blocks(self, start: int, stop: int, block_frames: int) -> Iterator[npt.NDArray[np.float32]]:
        """Decode the frames from `start` up to `stop`.

        Yields
        ------
        float32 [frames, channels]
            `block_frames` at a time, `stop - start` in all; bit for bit those of a decode
            of the whole recording, wherever they start.

        Raises
        ------
        RecordingError
            The recording does not give what its header claims, or gives NaN or infinity.
        """
        ...

    def finish(self) -> None:
        """Read on to the end where only that shows whether the header's length is right.

        Raises
        ------
        RecordingError
            As :meth:`blocks` does.
        """
        ...


def probe_audio(source: StoredObject, limits: MediaLimits = MediaLimits()) -> AudioInfo:
    """Read what a recording's header says, and check that it can be so.

    A few small reads at the file's ends, except where no header tells the length: an MP3
    without a Xing tag (or whose tag counts a part only), a FLAC stream written to a pipe,
    a chained Ogg stream, whatever is cut, and all that PyAV opens (M4A, WebM, WMA, films)
    are read to their end and their frames counted.

    Parameters
    ----------
    source
        The recording.
    limits
        What is still believed.

    Returns
    -------
    AudioInfo
        With the exact number of frames that :func:`open_audio` will give.

    Raises
    ------
    RecordingError
        Stage ``read``: the store. Stage ``probe``: empty, of no known format, without
        audio, truncated, of an implausible header, or not decodable. Its ``audio`` says
        what can be read of a recording that is truncated or corrupt.
    """
    with source.open() as file:
        if file.size_bytes == 0:
            raise RecordingError(Stage.PROBE, Cause.EMPTY_FILE, "the file has no bytes")
        header = examine_header(file)
        rate, channels, frames = header.sample_rate_hz, header.channels, header.frames
        require_plausible(rate, channels, frames, file.size_bytes, limits)
        audio = _probe(file, header, limits)
        rate, channels, frames = audio.sample_rate_hz, audio.channels, audio.frames
        require_plausible(rate, channels, frames, file.size_bytes, limits)
    return audio


def probe_object(
    source: StoredObject, upcoming: Sequence[StoredObject] = (), segment: str | None = None
) -> tuple[AudioInfo, int, str, str]:
    """Read an object's header, its size and its fingerprint where the listing gave none.

    With a segment (``""`` for the whole), its content's hash, too.
    """
    for one in upcoming:
        one.prefetch_header()
    if not source.fingerprint:
        size_bytes, fingerprint = source.stat()
        source = replace(source, size_bytes=size_bytes, fingerprint=fingerprint)
    audio = probe_audio(source)
    content_hash = "" if segment is None else hash_content(source, segment)
    return audio, source.size_bytes, source.fingerprint, content_hash


def _probe(file: StoredFile, header: Header, limits: MediaLimits) -> AudioInfo:
    view = file.splice(header.pieces) if header.pieces else file
    decoder = mended if header.pieces else str
    if header.container and not header.irregularity:
        audio = libsndfile.probe(view)
        if audio is not None and (header.missing or _is_plausible(audio, file, limits)):
            audio = replace(audio, decoder=decoder(_quicker_decoder(audio, header)))
            if header.damage:
                raise _damaged(header.damage, audio)
            # libsndfile leaves out of its count what pages that are missing would hold.
            if header.promised not in (None, audio.frames) and (damage := find_damage(file, audio)):
                raise _damaged(damage, audio)
            if header.missing:
                raise _cut(header, replace(audio, frames=count_frames(file, audio)))
            return audio
    from melmill.transforms.decode import pyav  # loads FFmpeg's libraries: not for every process

    try:
        audio = pyav.probe(view, header, decoder("pyav"))
    except RecordingError as error:
        if error.stage is Stage.PROBE and header.damage:
            raise _damaged(header.damage, error.audio) from error
        if error.stage is Stage.PROBE and header.missing:
            raise _cut(header, error.audio) from error
        raise
    if header.damage:
        raise _damaged(header.damage, audio)
    if header.missing and (header.frames is None or audio.frames < header.frames):
        raise _cut(header, audio)
    if header.container == "ogg" and (damage := find_damage(file, audio)) is not None:
        raise _damaged(damage, audio)
    if header.frames is not None and not header.missing and audio.frames != header.frames:
        message = f"{header.irregularity}: of {header.frames} frames, {audio.frames} decode"
        raise RecordingError(Stage.PROBE, Cause.LENGTH_MISMATCH, message)
    return audio


def _damaged(damage: tuple[int, str], audio: AudioInfo | None) -> RecordingError:
    """Make the error of a file that is damaged somewhere, with what is before that."""
    frames, message = damage
    if audio is not None:
        frames = min(audio.frames, frames)
        audio = replace(audio, frames=frames, decoder=partial(audio.decoder)) if frames else None
    return RecordingError(Stage.PROBE, Cause.CORRUPT, message, audio)


def _cut(header: Header, audio: AudioInfo | None) -> RecordingError:
    """Make the error of a file that ends too early, with what is there of it."""
    if audio is not None:
        audio = replace(audio, decoder=partial(audio.decoder)) if audio.frames else None
    return RecordingError(Stage.PROBE, Cause.TRUNCATED, header.missing, audio)


def _quicker_decoder(audio: AudioInfo, header: Header) -> str:
    """Choose who decodes what libsndfile has probed.

    FFmpeg decodes Vorbis in half libvorbis' time. In 40 songs and 300 random streams its
    samples were within 5e-7 of libvorbis'; with more than two channels it has another
    order of them, and of a stream of one page it loses the last of them.
    """
    is_safe = audio.channels <= 2 and not header.single_page
    return "pyav" if audio.codec == "vorbis" and is_safe else "libsndfile"


def _is_plausible(audio: AudioInfo, file: StoredFile, limits: MediaLimits) -> bool:
    """Tell whether what libsndfile made of an MP3 can be so; FFmpeg is asked otherwise."""
    most = min(limits.max_frames, limits.max_frames_per_byte * file.size_bytes)
    return audio.container != "mp3" or 0 < audio.frames <= most


def require_plausible(
    rate: int | None, channels: int | None, frames: int | None, size: int, limits: MediaLimits
) -> None:
    """Raise ``RecordingError`` if a recording has no frames, or cannot be as it claims to be."""
    if frames == 0:
        raise RecordingError(Stage.PROBE, Cause.NO_AUDIO, "the recording has no samples")
    most = min(limits.max_frames, limits.max_frames_per_byte * size)
    for name, value, low, high in (
        ("sample rate", rate, limits.min_sample_rate_hz, limits.max_sample_rate_hz),
        ("number of channels", channels, 1, limits.max_channels),
        ("number of frames", frames, 1, most),
    ):
        if value is not None and not low <= value <= high:
            message = f"{name} {value} is not within {low} to {high} (file of {size} bytes)"
            raise RecordingError(Stage.PROBE, Cause.IMPLAUSIBLE_HEADER, message)


def seeks_exactly(audio: AudioInfo) -> bool:
    """Tell whether a read may start anywhere; otherwise it decodes all that lies before."""
    return library(audio.decoder) == "libsndfile" and audio.codec in libsndfile.STATELESS


@contextmanager
def open_audio(
    source: StoredObject, audio: AudioInfo, start: int = 0, stop: int | None = None
) -> Iterator[AudioReader]:
    """Open a recording to decode it, by the decoder that probed it.

    Parameters
    ----------
    source
        The recording.
    audio
        What :func:`probe_audio` said of it, or a failure's ``audio``.
    start, stop
        The frames that will be read; ``None`` for the recording's end.

    Yields
    ------
    AudioReader

    Raises
    ------
    RecordingError
        Stage ``read``: the store. Stage ``decode``: the recording.
    """
    share = 1.0 if stop is None else stop / audio.frames
    from_start = start == 0 or not seeks_exactly(audio)
    with (
        source.open(share=share, from_start=from_start) as file,
        closing(Reader(file, audio)) as reader,
    ):
        yield reader
