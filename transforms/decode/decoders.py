"""Opens recordings: reads their headers, and decodes their samples as float32 blocks.

libsndfile decodes all files that it decodes completely; PyAV (FFmpeg) decodes the rest. The
probe chooses the library once, so that each read of a recording gives the same samples.
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
from melmill.transforms.decode.decoder_names import library, mended, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.reading import Reader
from melmill.transforms.decode.streams import count_frames
from melmill.transforms.store.objects import StoredObject, hash_content
from melmill.transforms.store.stored_file import StoredFile


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Limits for plausible values in a header.

    Attributes
    ----------
    max_channels, min_sample_rate_hz, max_sample_rate_hz
        Limits for the number of channels and for the sample rate.
    max_frames
        Maximum number of frames.
    max_frames_per_byte
        Maximum number of frames per byte of the file. Hours of silence fit into a few
        kilobytes, but two billion frames do not fit into a hundred bytes. Opus and FLAC files
        with 3,000 to 6,000 frames per byte were seen.
    """

    max_channels: int = 64
    min_sample_rate_hz: int = 500
    max_sample_rate_hz: int = 768_000
    max_frames: int = 2**40
    max_frames_per_byte: int = 8192


class AudioReader(Protocol):
    """An open recording.

    Attributes
    ----------
    audio
        Result of the recording's probe.
    """

    audio: AudioInfo

    def blocks(self, start: int, stop: int, block_frames: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the decoded frames from `start` up to `stop`.

        Yields
        ------
        float32 [frames, channels]
            Blocks of `block_frames` frames, `stop - start` frames in total. For every `start`
            they equal, bit for bit, those of a decode of the whole recording.

        Raises
        ------
        RecordingError
            The recording does not match its header, or contains NaN or infinity, unless
            :func:`open_audio` was told to let them pass.
        """
        ...

    def finish(self) -> None:
        """Read to the end if that is needed to check the length in the header.

        Raises
        ------
        RecordingError
            The same errors as in :meth:`blocks`.
        """
        ...


def probe_audio(source: StoredObject, limits: MediaLimits = MediaLimits()) -> AudioInfo:
    """Return a description of a recording's audio, after checking its header.

    A probe needs a few small reads at the start and the end of a file. If no header gives the
    length, the file is read to its end and its frames are counted: an MP3 without a Xing tag
    or with a tag that counts only a part, a FLAC stream written to a pipe, a chained Ogg
    stream, a truncated file, and every file that PyAV opens (M4A, WebM, WMA, films).

    Parameters
    ----------
    source
        Recording to probe.
    limits
        Limits for plausible values in a header.

    Returns
    -------
    AudioInfo
        Description with the exact number of frames that :func:`open_audio` will give.

    Raises
    ------
    RecordingError
        Stage ``read``: an error of the store. Stage ``probe``: the file is empty, has an
        unknown format, no audio or an implausible header, is truncated, or cannot be decoded.
        If it is truncated or corrupt, the error's ``audio`` describes the readable part.
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
    """Return an object's audio description, size, fingerprint and content hash.

    Parameters
    ----------
    source
        Object to probe. If its fingerprint is empty, size and fingerprint are read from the
        store.
    upcoming
        Objects that will be probed next; their headers are fetched meanwhile.
    segment
        Segment whose content is hashed; ``""`` for the whole recording, ``None`` for no hash
        (an empty string is returned).
    """
    for next_source in upcoming:
        next_source.prefetch_header()
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
            # If pages are missing, libsndfile does not count their frames.
            if header.promised not in (None, audio.frames) and (damage := find_damage(file, audio)):
                raise _damaged(damage, audio)
            if header.missing:
                raise _cut(header, replace(audio, frames=count_frames(file, audio)))
            return audio
    # Imported here because it loads FFmpeg's libraries, which not every process needs.
    from melmill.transforms.decode import pyav

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
        counts = f"{header.frames} frames were expected, {audio.frames} were decoded"
        message = f"{header.irregularity}: {counts}"
        raise RecordingError(Stage.PROBE, Cause.LENGTH_MISMATCH, message)
    return audio


def _damaged(damage: tuple[int, str], audio: AudioInfo | None) -> RecordingError:
    """Return the error for a damaged file; its ``audio`` is the part before the damage."""
    frames, message = damage
    if audio is not None:
        frames = min(audio.frames, frames)
        audio = replace(audio, frames=frames, decoder=partial(audio.decoder)) if frames else None
    return RecordingError(Stage.PROBE, Cause.CORRUPT, message, audio)


def _cut(header: Header, audio: AudioInfo | None) -> RecordingError:
    """Return the error for a truncated file; its ``audio`` is the part that is in the file."""
    if audio is not None:
        audio = replace(audio, decoder=partial(audio.decoder)) if audio.frames else None
    return RecordingError(Stage.PROBE, Cause.TRUNCATED, header.missing, audio)


def _quicker_decoder(audio: AudioInfo, header: Header) -> str:
    """Return the faster library for a recording that libsndfile has probed.

    FFmpeg decodes Vorbis in half the time of libvorbis. In 40 songs and 300 random streams its
    samples were within 5e-7 of those of libvorbis. But with more than two channels FFmpeg has
    another channel order, and it loses the last samples of a stream that has only one page.
    """
    is_safe = audio.channels <= 2 and not header.single_page
    return "pyav" if audio.codec == "vorbis" and is_safe else "libsndfile"


def _is_plausible(audio: AudioInfo, file: StoredFile, limits: MediaLimits) -> bool:
    """Return whether libsndfile's length of an MP3 is plausible; if not, FFmpeg probes it."""
    most = min(limits.max_frames, limits.max_frames_per_byte * file.size_bytes)
    return audio.container != "mp3" or 0 < audio.frames <= most


def require_plausible(
    rate: int | None, channels: int | None, frames: int | None, size: int, limits: MediaLimits
) -> None:
    """Raise RecordingError if a recording has no frames, or its header is implausible."""
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
    """Return whether a read can start anywhere; if not, it decodes from the recording's start."""
    return library(audio.decoder) == "libsndfile" and audio.codec in libsndfile.STATELESS


@contextmanager
def open_audio(
    source: StoredObject,
    audio: AudioInfo,
    start: int = 0,
    stop: int | None = None,
    *,
    must_be_finite: bool = True,
) -> Iterator[AudioReader]:
    """Open a recording with the decoder that its probe chose, and close it at the end.

    Parameters
    ----------
    source
        Recording to open.
    audio
        Result of :func:`probe_audio`, or the ``audio`` of a failure.
    start, stop
        Range of frames that will be read; ``None`` for the recording's end.
    must_be_finite
        Whether NaN and infinity are errors. If not, they are among the samples: who shows or plays
        a recording must replace them.

    Yields
    ------
    AudioReader

    Raises
    ------
    RecordingError
        Stage ``read``: an error of the store. Stage ``decode``: an error of the recording.
    """
    share = 1.0 if stop is None else stop / audio.frames
    from_start = start == 0 or not seeks_exactly(audio)
    with (
        source.open(share=share, from_start=from_start) as file,
        closing(Reader(file, audio, must_be_finite=must_be_finite)) as reader,
    ):
        yield reader
