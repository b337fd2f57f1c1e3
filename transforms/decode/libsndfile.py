"""Decoding with libsndfile: WAV and its kin, FLAC, Ogg Vorbis and Opus, regular MP3.

What libsndfile 1.2.2 gives after a seek was compared, bit by bit, with a decode from the
start. Of the codecs in which a sample depends on what came before it none passed: Vorbis
lands elsewhere in its last page (and now and then in others), MP3 differs in the last bit
in mono and at low rates, and by much where its bit reservoir reaches back far, Opus never
settles at low bit rates. Those are decoded from their start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import soundfile

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import ogg
from melmill.transforms.decode.decoders import is_partial
from melmill.transforms.decode.tag_ranges import audio_end
from melmill.transforms.decode.tags import keep_tags
from melmill.transforms.store.stored_file import StoredFile

#: The formats whose length is checked before libsndfile sees them.
_CONTAINERS = {
    **{name.upper(): name for name in ("wav", "rf64", "w64", "aiff", "au", "caf", "nist")},
    **{name.upper(): name for name in ("flac", "ogg", "mp3")},
    "WAVEX": "wav",
}
_CODECS = {"mpeg_layer_iii": "mp3", "mpeg_layer_ii": "mp2", "mpeg_layer_i": "mp1"}

#: A sample depends on itself, or on its block, alone: seeking is exact.
STATELESS = frozenset(
    {"pcm_u8", "pcm_s8", "pcm_16", "pcm_24", "pcm_32", "float", "double", "ulaw", "alaw"}
    | {"ima_adpcm", "ms_adpcm", "alac_16", "alac_20", "alac_24", "alac_32", "flac"}
)
#: Codecs of whole numbers, which are always finite.
INTEGER = frozenset({"pcm_u8", "pcm_s8", "pcm_16", "pcm_24", "pcm_32", "ulaw", "alaw", "flac"})
_OPUS_RATE_HZ = 48_000
#: libsndfile may stop this much before the end of an MP3: its last frames may hold padding.
_READ_AHEAD_BYTES = 4096


class _SoundFile(soundfile.SoundFile):
    """A sound file that is read straight on.

    soundfile seeks to where it is after every read of a seekable file, which costs FLAC
    and MP3 a frame each time, and Ogg Vorbis its overlap.
    """

    def seekable(self) -> bool:
        return False


def probe(file: StoredFile) -> AudioInfo | None:
    """Read a file's header with libsndfile.

    Returns
    -------
    AudioInfo or None
        ``None`` where libsndfile does not know the format, or where its length could not
        have been checked.
    """
    file.seek(0)
    try:
        with _SoundFile(file) as sound:
            container, codec = _CONTAINERS.get(sound.format), _codec(sound)
            shape = sound.samplerate, sound.channels, sound.frames
            tags = keep_tags(sound.copy_metadata())
    except soundfile.SoundFileError:
        file.raise_kept()
        return None
    file.raise_kept()
    is_mpeg = codec in _CODECS.values()
    # In a WAV it stops at the length that it guesses.
    if container is None or codec is None or is_mpeg != (container == "mp3"):
        return None
    return AudioInfo(container, codec, "libsndfile", *shape, tags)


def _codec(sound: soundfile.SoundFile) -> str | None:
    codec = str(sound.subtype).lower()
    if sound.format == "FLAC":
        return "flac"
    if sound.format == "OGG" and codec != "vorbis":
        # At other rates libsndfile gives up within streams that FFmpeg wrote.
        return codec if codec == "opus" and sound.samplerate == _OPUS_RATE_HZ else None
    return _CODECS.get(codec, codec)


class SndfileStream:
    """One pass over a recording's samples.

    Parameters
    ----------
    file
        Stays open.
    audio
        What the probe found.
    """

    def __init__(self, file: StoredFile, audio: AudioInfo) -> None:
        self._file = file
        self._audio = audio
        self.position = 0
        file.seek(0)
        descriptor = file.lend_descriptor()
        with _decoder_errors(file):
            self._sound = _SoundFile(file if descriptor is None else descriptor, closefd=False)
        self._require_unchanged()

    def _require_unchanged(self) -> None:
        sound, audio = self._sound, self._audio
        # A partial recording's length is not the header's.
        frames = audio.frames if is_partial(audio.decoder) else sound.frames
        found = sound.samplerate, sound.channels, frames
        probed = audio.sample_rate_hz, audio.channels, audio.frames
        if found != probed:
            message = f"probed as (rate, channels, frames) {probed}, opened as {found}"
            raise RecordingError(Stage.DECODE, Cause.CHANGED, message)

    def close(self) -> None:
        """Give back the decoder's memory."""
        self._sound.close()

    def seek(self, start: int) -> None:
        """Move to `start` where that is exact; else stay, to be read forward."""
        if self._audio.codec in STATELESS and start != self.position:
            with _decoder_errors(self._file):
                self._sound.seek(start)
            self.position = start

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Read on.

        Returns
        -------
        float32 [frames, channels]
            Shorter only at the end of what can be decoded.
        """
        block = np.empty((frames, self._audio.channels), np.float32)
        count = 0
        while count < frames:
            with _decoder_errors(self._file):
                got = len(self._sound.read(out=block[count:]))
            if not got:
                self._file.check_here()
                break
            count += got
        self.position += count
        return block[:count]

    def leaves_audio(self) -> bool:
        """Tell, at the end, whether there may be audio that libsndfile does not come to."""
        position = self._file.check_here()
        if self._audio.container == "ogg":
            last = ogg.last_page(self._file)
            return last is not None and last.start >= position
        if self._audio.container == "mp3":
            return audio_end(self._file, 0) - position > _READ_AHEAD_BYTES
        return False


@contextmanager
def _decoder_errors(file: StoredFile) -> Iterator[None]:
    """Tell the store's errors, which the decoder swallowed, from the decoder's own."""
    try:
        yield
    except soundfile.SoundFileError as error:
        file.raise_kept()
        message = getattr(error, "error_string", "") or str(error) or type(error).__name__
        cause = Cause.TRUNCATED if file.check_here() >= file.size_bytes else Cause.CORRUPT
        raise RecordingError(Stage.DECODE, cause, f"libsndfile: {message}") from error
    file.raise_kept()
