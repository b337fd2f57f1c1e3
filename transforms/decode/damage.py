"""What is wrong with a recording whose decode does not give what its probe counted.

A decoder that falls short is not believed before the other one was asked: FFmpeg loses
the last samples of some Vorbis streams, libsndfile what a wrong MP3 tag hides. Whatever
comes out depends on the file alone, not on the part of it that was being read.
"""

from __future__ import annotations

from dataclasses import replace

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile, mpeg, ogg
from melmill.transforms.decode.decoders import is_partial, library, mended, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.streams import DECODERS_CAUSES, count_frames
from melmill.transforms.decode.tag_ranges import skip_id3v2
from melmill.transforms.store.stored_file import StoredFile

#: Codecs that both libraries decode, and whose end is not checked frame by frame (as FLAC's).
_IN_BOTH = frozenset({"vorbis", "opus", "mp3", "mp2", "mp1"})


def explain(file: StoredFile, audio: AudioInfo, error: RecordingError) -> RecordingError:
    """Say what is wrong with a recording.

    Parameters
    ----------
    file
        The recording, open.
    audio
        What its probe said.
    error
        What its decode ended with.

    Returns
    -------
    RecordingError
        ``length_mismatch`` where nothing is missing, with the whole stream as its
        ``audio``; else ``truncated`` or ``corrupt``, with the frames before the damage. The
        given error where a decode from the start finds no fault.
    """
    if is_partial(audio.decoder):
        return error
    if error.cause is Cause.LENGTH_MISMATCH and error.audio is not None:
        return mismatch(file, audio, error.audio)
    if error.cause is Cause.CHANGED and _probes_alike(file, audio):
        error = RecordingError(Stage.DECODE, Cause.CORRUPT, error.message)
    if error.cause not in DECODERS_CAUSES:
        return error
    found = find_damage(file, audio)
    # Each opinion is a whole decode, within one time limit; and what is damaged stays so.
    second = ask_other(file, audio) if found is None and audio.codec in _IN_BOTH else None
    if second is not None:
        return mismatch(file, audio, second)
    own = count_frames(file, audio)
    ends_well = error.cause is Cause.TRUNCATED and error.audio is None and own
    if library(audio.decoder) == "pyav" and found is None and ends_well:
        return mismatch(file, audio, replace(audio, frames=own))
    if own >= audio.frames and found is None:
        return error
    frames, what = (min(own, found[0]), f"; {found[1]}") if found else (own, "")
    cause = Cause.CORRUPT if found else error.cause
    remains = replace(audio, frames=frames, decoder=partial(audio.decoder)) if frames else None
    message = f"{error.message}{what}; the first {frames} frames are sound"
    return RecordingError(Stage.DECODE, cause, message, remains)


def mismatch(file: StoredFile, audio: AudioInfo, second: AudioInfo) -> RecordingError:
    """Make the error of a recording that decodes to another length, and lacks nothing.

    Parameters
    ----------
    audio
        What its probe said.
    second
        What was counted since.
    """
    message = (
        f"{library(audio.decoder)} was to give {audio.frames} frames; "
        f"{library(second.decoder)} gives {second.frames} and finds nothing missing"
    )
    counted: AudioInfo | None = second
    if audio.container == "ogg":
        frames = ogg.count_frames(file, skip_id3v2(file))
        if frames != second.frames:  # joined streams: neither decoder gives them as they are
            message, counted = f"{message}; the pages count {frames}", None
    return RecordingError(Stage.DECODE, Cause.LENGTH_MISMATCH, message, counted)


def ask_other(file: StoredFile, audio: AudioInfo) -> AudioInfo | None:
    """Count a recording with the other library; ``None`` where that finds fault, too."""
    header = examine_header(file)
    view = file.splice(header.pieces) if header.pieces else file
    decoder = mended if header.pieces else str
    try:
        if library(audio.decoder) == "libsndfile":
            from melmill.transforms.decode import (
                pyav,  # loads FFmpeg's libraries: not for every process
            )

            return pyav.probe(view, header, decoder("pyav"))
        second = libsndfile.probe(view)
        if second is None or second.channels != audio.channels:
            return None
        second = replace(second, decoder=decoder("libsndfile"))
        return second if count_frames(file, second) == second.frames else None
    except RecordingError as error:
        if error.stage is Stage.READ:
            raise
        return None


def _probes_alike(file: StoredFile, audio: AudioInfo) -> bool:
    """Tell whether libsndfile still says what the probe said, so that the file is the same.

    It reads some odd MP3s otherwise by their descriptor, and FFmpeg some Vorbis.
    """
    header = examine_header(file)
    again = libsndfile.probe(file.splice(header.pieces) if header.pieces else file)
    return again is not None and replace(again, decoder=audio.decoder) == audio


def find_damage(file: StoredFile, audio: AudioInfo) -> tuple[int, str] | None:
    """Find where an Ogg or an MP3 is damaged: the frames before that, and what is there."""
    start = skip_id3v2(file)
    if audio.container == "ogg":
        return ogg.first_damage(file, start)
    return mpeg.walk(file, start).damage if audio.container == "mp3" else None
