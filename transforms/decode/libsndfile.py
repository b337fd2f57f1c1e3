"""Decoding with libsndfile: WAV and similar formats, FLAC, Ogg Vorbis and Opus, regular MP3.

The samples that libsndfile 1.2.2 gives after a seek were compared, bit by bit, with a decode
from the start. All codecs failed in which a sample depends on earlier data. Vorbis reaches a
wrong position in its last page, and sometimes in other pages. MP3 differs in the last bit in
mono and at low rates, and by much more where its bit reservoir reaches far back. Opus never
converges at low bit rates. These codecs are decoded from the start.
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
from melmill.transforms.decode.decoder_names import is_partial
from melmill.transforms.decode.tag_ranges import audio_end
from melmill.transforms.decode.tags import keep_tags
from melmill.transforms.store.stored_file import StoredFile

#: Formats whose length is checked before libsndfile opens the file.
_CONTAINERS = {
    **{name.upper(): name for name in ("wav", "rf64", "w64", "aiff", "au", "caf", "nist")},
    **{name.upper(): name for name in ("flac", "ogg", "mp3")},
    "WAVEX": "wav",
}
_CODECS = {"mpeg_layer_iii": "mp3", "mpeg_layer_ii": "mp2", "mpeg_layer_i": "mp1"}

#: Codecs in which a sample depends only on its own data or its block's: seeking is exact.
STATELESS = frozenset(
    {"pcm_u8", "pcm_s8", "pcm_16", "pcm_24", "pcm_32", "float", "double", "ulaw", "alaw"}
    | {"ima_adpcm", "ms_adpcm", "alac_16", "alac_20", "alac_24", "alac_32", "flac"}
)
#: Codecs of integer samples, which are always finite.
INTEGER = frozenset({"pcm_u8", "pcm_s8", "pcm_16", "pcm_24", "pcm_32", "ulaw", "alaw", "flac"})
_OPUS_RATE_HZ = 48_000
#: Bytes that libsndfile may leave unread at the end of an MP3: the last frames may be padding.
_READ_AHEAD_BYTES = 4096


class _SoundFile(soundfile.SoundFile):
    """A sound file that is read forward only.

    After each read of a seekable file, soundfile seeks to the current position. Each time,
    this costs a frame in FLAC and MP3, and the overlap in Ogg Vorbis.
    """

    def seekable(self) -> bool:
        return False


def probe(file: StoredFile) -> AudioInfo | None:
    """Return what libsndfile reads from a file's header.

    Returns
    -------
    AudioInfo or None
        ``None`` if libsndfile does not know the format, or if the length of this format is
        not checked by our header readers.
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
    # For MPEG audio in a WAV, libsndfile guesses the length and stops there.
    if container is None or codec is None or is_mpeg != (container == "mp3"):
        return None
    return AudioInfo(container, codec, "libsndfile", *shape, tags)


def _codec(sound: soundfile.SoundFile) -> str | None:
    codec = str(sound.subtype).lower()
    if sound.format == "FLAC":
        return "flac"
    if sound.format == "OGG" and codec != "vorbis":
        # At other rates libsndfile fails within some streams that FFmpeg wrote.
        return codec if codec == "opus" and sound.samplerate == _OPUS_RATE_HZ else None
    return _CODECS.get(codec, codec)


class SndfileStream:
    """One pass over a recording's samples.

    Parameters
    ----------
    file
        Open file; :meth:`close` does not close it.
    audio
        Result of the probe.

    Attributes
    ----------
    position
        Number of the next frame.
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
        # The length of a partial recording differs from its header's.
        frames = audio.frames if is_partial(audio.decoder) else sound.frames
        opened = sound.samplerate, sound.channels, frames
        probed = audio.sample_rate_hz, audio.channels, audio.frames
        if opened != probed:
            message = f"(rate, channels, frames) was {probed} when probed, it is now {opened}"
            raise RecordingError(Stage.DECODE, Cause.CHANGED, message)

    def close(self) -> None:
        """Free the decoder's memory."""
        self._sound.close()

    def seek(self, start: int) -> None:
        """Move to `start` if seeking is exact; otherwise do nothing, the caller reads forward."""
        if self._audio.codec in STATELESS and start != self.position:
            with _decoder_errors(self._file):
                self._sound.seek(start)
            self.position = start

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Return the next frames.

        Returns
        -------
        float32 [frames, channels]
            Block that is shorter than requested only where decoding ends.
        """
        block = np.empty((frames, self._audio.channels), np.float32)
        count = 0
        while count < frames:
            with _decoder_errors(self._file):
                new_frames = len(self._sound.read(out=block[count:]))
            if not new_frames:
                self._file.check_here()
                break
            count += new_frames
        self.position += count
        return block[:count]

    def leaves_audio(self) -> bool:
        """Return whether, at the end, the file may contain audio that was not decoded."""
        position = self._file.check_here()
        if self._audio.container == "ogg":
            last = ogg.last_page(self._file)
            return last is not None and last.start >= position
        if self._audio.container == "mp3":
            return audio_end(self._file, 0) - position > _READ_AHEAD_BYTES
        return False


@contextmanager
def _decoder_errors(file: StoredFile) -> Iterator[None]:
    """Raise an error of the store, which the decoder hides, or else the decoder's own error."""
    try:
        yield
    except soundfile.SoundFileError as error:
        file.raise_kept()
        message = getattr(error, "error_string", "") or str(error) or type(error).__name__
        cause = Cause.TRUNCATED if file.check_here() >= file.size_bytes else Cause.CORRUPT
        raise RecordingError(Stage.DECODE, cause, f"libsndfile: {message}") from error
    file.raise_kept()
