"""Diagnosis of a recording whose decode does not give the frames that its probe counted.

If one decoder gives too few frames, the other decoder is tried: FFmpeg loses the last
samples of some Vorbis streams, and libsndfile loses audio that a wrong MP3 tag does not
count. The diagnosis depends only on the file, not on the part that was read.
"""

from __future__ import annotations

from dataclasses import replace

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile, mpeg, ogg
from melmill.transforms.decode.decoder_names import is_partial, library, mended, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.streams import DECODERS_CAUSES, count_frames
from melmill.transforms.decode.tag_ranges import skip_id3v2
from melmill.transforms.store.stored_file import StoredFile

#: Codecs that both libraries decode, and whose end is not checked frame by frame as in FLAC.
_IN_BOTH = frozenset({"vorbis", "opus", "mp3", "mp2", "mp1"})


def explain(file: StoredFile, audio: AudioInfo, error: RecordingError) -> RecordingError:
    """Return an error that says what is wrong with a recording.

    Parameters
    ----------
    file
        The open recording.
    audio
        Result of its probe.
    error
        Error that ended its decode.

    Returns
    -------
    RecordingError
        ``length_mismatch`` if nothing is missing, with the whole stream as its ``audio``.
        Otherwise ``truncated`` or ``corrupt``, with the frames before the damage as its
        ``audio``. The given error if a decode from the start finds no fault.
    """
    if is_partial(audio.decoder):
        return error
    if error.cause is Cause.LENGTH_MISMATCH and error.audio is not None:
        return mismatch(file, audio, error.audio)
    if error.cause is Cause.CHANGED and _probes_alike(file, audio):
        error = RecordingError(Stage.DECODE, Cause.CORRUPT, error.message)
    if error.cause not in DECODERS_CAUSES:
        return error
    damage = find_damage(file, audio)
    # The other library decodes the whole file again, within the same time limit. Skip that if
    # the damage is known: it would not change the result.
    second = ask_other(file, audio) if damage is None and audio.codec in _IN_BOTH else None
    if second is not None:
        return mismatch(file, audio, second)
    decoded = count_frames(file, audio)
    ends_well = error.cause is Cause.TRUNCATED and error.audio is None and decoded
    if library(audio.decoder) == "pyav" and damage is None and ends_well:
        return mismatch(file, audio, replace(audio, frames=decoded))
    if decoded >= audio.frames and damage is None:
        return error
    frames, detail = (min(decoded, damage[0]), f"; {damage[1]}") if damage else (decoded, "")
    cause = Cause.CORRUPT if damage else error.cause
    intact = replace(audio, frames=frames, decoder=partial(audio.decoder)) if frames else None
    message = f"{error.message}{detail}; the first {frames} frames are intact"
    return RecordingError(Stage.DECODE, cause, message, intact)


def mismatch(file: StoredFile, audio: AudioInfo, second: AudioInfo) -> RecordingError:
    """Return the error for a complete recording that decodes to an unexpected length.

    Parameters
    ----------
    file
        The open recording.
    audio
        Result of its probe.
    second
        Result of counting its frames again.
    """
    message = (
        f"the probe expected {audio.frames} frames from {library(audio.decoder)}; "
        f"{library(second.decoder)} decodes {second.frames} frames and finds nothing missing"
    )
    counted: AudioInfo | None = second
    if audio.container == "ogg":
        frames = ogg.count_frames(file, skip_id3v2(file))
        if frames != second.frames:  # joined streams: neither decoder gives all frames exactly
            message, counted = f"{message}; the Ogg pages count {frames} frames", None
    return RecordingError(Stage.DECODE, Cause.LENGTH_MISMATCH, message, counted)


def ask_other(file: StoredFile, audio: AudioInfo) -> AudioInfo | None:
    """Return the frames that the other library counts; ``None`` if it also finds a fault."""
    header = examine_header(file)
    view = file.splice(header.pieces) if header.pieces else file
    decoder = mended if header.pieces else str
    try:
        if library(audio.decoder) == "libsndfile":
            from melmill.transforms.decode import (
                pyav,  # loads FFmpeg's libraries, which not every process needs
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
    """Return whether libsndfile still gives the result of the probe, so the file is unchanged.

    A decode may report a change although there is none: libsndfile reads some irregular MP3s
    differently through a file descriptor, and FFmpeg reads some Vorbis streams differently.
    """
    header = examine_header(file)
    again = libsndfile.probe(file.splice(header.pieces) if header.pieces else file)
    return again is not None and replace(again, decoder=audio.decoder) == audio


def find_damage(file: StoredFile, audio: AudioInfo) -> tuple[int, str] | None:
    """Return the frames before the damage in an Ogg or MP3 file, and its description."""
    start = skip_id3v2(file)
    if audio.container == "ogg":
        return ogg.first_damage(file, start)
    return mpeg.walk(file, start).damage if audio.container == "mp3" else None
