"""Decoding with PyAV (FFmpeg): all that libsndfile cannot open, or would not read whole.

Exact seeking is not proven for FFmpeg's demuxers, so every stream is decoded from its
start, and its frames are counted by a decode: containers round their durations, and
encoders' padding is cut from some and left in others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import av
import av.error
import av.stream
import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import mpeg
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.decoders import is_partial, partial
from melmill.transforms.decode.sample_formats import to_float
from melmill.transforms.decode.tags import keep_tags
from melmill.transforms.store.stored_file import StoredFile

#: Fuzzing PyAV gave more than its own classes: UnicodeDecodeError, IndexError, EOFError.
_DECODER_ERRORS = (
    *(av.error.FFmpegError, OSError, EOFError),
    *(ValueError, LookupError, ArithmeticError),
)
#: Containers of sound, each known by its own magic word. Not the formats that FFmpeg makes
#: out of any text (captions, synthesiser scripts), nor playlists: a recording is one file,
#: and must not make a worker open others.
_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": (
        "aac,ac3,aiff,amr,ape,asf,au,avi,avr,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,loas,"
        "matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,shn,"
        "sox,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"
    ),
}
#: Demuxers whose duration is the file's claim, not FFmpeg's estimate from the bit rate.
_CLAIMING = frozenset(
    {"mov", "matroska", "flac", "caf", "wav", "aiff", "flv"}
    | {"ape", "mpc", "mpc8", "tak", "tta", "wv"}
)
#: A decode may fall this much short of the claim: durations are rounded, and padding is
#: counted or not.
_SLACK_SECONDS = 0.5
#: Ogg Vorbis: FFmpeg gives the whole of the last block, which the last position cuts off.
_VORBIS_SURPLUS = 8192
#: Formats of frames without a container, between which anything may lie.
_BARE = frozenset({"mp3", "aac", "ac3", "eac3", "dts"})
#: Causes of a recording that can be read in part.
_DAMAGE = (Cause.CORRUPT, Cause.TRUNCATED)
_DEFAULT = av.stream.Disposition.default
_COVER = av.stream.Disposition.attached_pic


def probe(file: StoredFile, header: Header, decoder: str = "pyav") -> AudioInfo:
    """Open a file and count its frames, by decoding all of it.

    Parameters
    ----------
    file
        Read to its end.
    header
        What its first bytes claim.
    decoder
        What :attr:`AudioInfo.decoder` is to say.

    Raises
    ------
    RecordingError
        ``unknown_format``, ``no_audio``, ``truncated``, or ``corrupt``.
    """
    about = header.irregularity or header.mended
    with closing(PyavStream(file, None, about, header.container, decoder)) as stream:
        # Read first: it would not be the file's any more after the last packet.
        claimed = stream.claimed_seconds()
        while stream.skip():
            pass
        rate = stream.shape[0]
        if claimed is not None and stream.position < (claimed - _SLACK_SECONDS) * rate:
            message = f"{stream.position / rate:.3f} s decode of the {claimed:.3f} s claimed"
            raise stream.error(Cause.TRUNCATED, message)
        return stream.describe()


def _container_name(container: Any) -> str:
    """FFmpeg names a demuxer after all that it opens: ``mov,mp4,m4a,3gp,3g2,mj2``."""
    name = str(container.format.name).partition(",")[0]
    if name == "mov":
        pictures = [s for s in container.streams.video if not s.disposition & _COVER]
        return "mp4" if pictures else "m4a"
    return name


class PyavStream:
    """One pass over the samples of a file's default, or first, audio stream.

    Parameters
    ----------
    file
        Stays open.
    audio
        What the probe found; ``None`` while probing.
    about
        What is known of the file, for messages.
    container
        Name of the file's format; FFmpeg's without.
    decoder
        What :attr:`AudioInfo.decoder` is to say.

    Attributes
    ----------
    position
        Frames read so far.
    shape
        Sample rate, and number of channels.
    """

    def __init__(
        self,
        file: StoredFile,
        audio: AudioInfo | None = None,
        about: str = "",
        container: str = "",
        decoder: str = "pyav",
    ) -> None:
        self._file = file
        self._stage = Stage.PROBE if audio is None else Stage.DECODE
        self._about = f"{about}: " if about else ""
        self._audio = audio
        self._decoder = decoder
        self.position = 0
        # Rate and channels are the first frame's: of HE-AAC a container knows the half.
        self.shape = (0, 0)
        self._early = 0
        self._ready = av.AudioFifo()
        file.seek(0)
        with self._decoder_errors(Cause.UNKNOWN_FORMAT):
            self.container = av.open(
                file, "r", container_options=_OPTIONS, metadata_errors="replace"
            )
            self.stream = self._choose_stream()
            self._container = container or _container_name(self.container)
            # Read first: it would not be the file's any more after the last packet.
            self._tags = keep_tags({**self.container.metadata, **self.stream.metadata})
            context = self.stream.codec_context
            self._codec = str(context.codec.canonical_name)
            # Threads would take the cores of other processes.
            context.thread_count = 1
            if self._codec == "flac":  # else damage passes for sound
                context.options = {"err_detect": "crccheck+explode"}
        self._frames = self._decode_packets()
        self._fill(1)
        if not self._ready.samples:
            raise self.error(Cause.NO_AUDIO, "no samples decode")
        self._require_unchanged(audio)
        if self._is_ogg_vorbis():
            self._fill(self._early)
            self._take(self._early)

    def _choose_stream(self) -> Any:
        streams = [s for s in self.container.streams.audio if s.codec_context is not None]
        if not streams:
            raise self.error(Cause.NO_AUDIO, "the file has no audio stream that can be decoded")
        return next((stream for stream in streams if stream.disposition & _DEFAULT), streams[0])

    def _require_unchanged(self, audio: AudioInfo | None) -> None:
        if audio is not None and self.shape != (audio.sample_rate_hz, audio.channels):
            probed = audio.sample_rate_hz, audio.channels
            message = f"probed as (rate, channels) {probed}, opened as {self.shape}"
            raise self.error(Cause.CHANGED, message)

    def close(self) -> None:
        """Give back the decoder's memory."""
        self.container.close()

    def claimed_seconds(self) -> float | None:
        """The duration that the file claims, if it does."""
        kind = self.container.format.name.partition(",")[0]
        if kind not in _CLAIMING:
            return None
        if self.stream.duration is not None:
            return float(self.stream.duration * self.stream.time_base)
        # A container's duration is its longest stream's, which may be the picture's.
        alone = len(self.container.streams) == 1
        duration = self.container.duration if alone else None
        if duration is None:
            return None
        # Matroska counts from 0, wherever the first time stamp is.
        return float((duration - max(0, self.container.start_time or 0)) / av.time_base)

    def seek(self, start: int) -> None:
        """Stay, to be read forward."""

    def skip(self) -> int:
        """Throw away the next frames, as many as the decoder has ready; 0 at the end."""
        self._fill(1)
        skipped = len(self._take(self._ready.samples))
        self.position += skipped
        return skipped

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Read on.

        Returns
        -------
        float32 [frames, channels]
            Shorter only at the end of what can be decoded.
        """
        self._fill(frames)
        block = self._take(frames)
        self.position += len(block)
        self._require_no_more()
        return block

    def leaves_audio(self) -> bool:
        """Tell whether there is more: never, since :meth:`read` looks."""
        return False

    def _is_ogg_vorbis(self) -> bool:
        """Whether the stream's own positions say where the sound begins and ends.

        FFmpeg gives also what lies before position 0 and behind the last one. (libsndfile
        leaves out as many samples as lie before 0, but not always those.)
        """
        return (self._container, self._codec) == ("ogg", "vorbis")

    def _require_no_more(self) -> None:
        audio = self._audio
        if audio is None or self.position < audio.frames or is_partial(audio.decoder):
            return
        surplus = _VORBIS_SURPLUS if self._is_ogg_vorbis() else 0
        self._fill(surplus + 1)
        if self._ready.samples > surplus:
            while self.skip():
                pass
            message = f"FFmpeg decodes {self.position} frames, where {audio.frames} were expected"
            raise RecordingError(
                self._stage, Cause.LENGTH_MISMATCH, self._about + message, self.describe()
            )

    def _fill(self, samples: int) -> None:
        """Decode until so many samples are ready, or to the end."""
        # A frame is a fiftieth of a second: what is done for each costs like decoding it.
        missing = samples - self._ready.samples
        with self._decoder_errors():
            while missing > 0 and (frame := next(self._frames, None)) is not None:
                if count := frame.samples:
                    self._admit(frame)
                    missing -= count

    def _decode_packets(self) -> Iterator[Any]:
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if self.container.format.name not in _BARE or not _is_junk(packet, self._codec):
                    raise
                continue
            yield from frames

    def _admit(self, frame: Any) -> None:
        if not self.shape[0]:
            self.shape = _shape(frame)
            self._early = max(0, -round((frame.pts or 0) * frame.time_base * frame.sample_rate))
        # The queue does not compare channels, and would read beside the frame's samples.
        elif frame.layout.nb_channels != self.shape[1]:
            raise self._change(frame)
        frame.pts = None  # else the queue would have it continue the frame before
        try:
            self._ready.write(frame)
        except ValueError as error:  # the rate, or the kind of samples
            raise self._change(frame) from error

    def _change(self, frame: Any) -> RecordingError:
        at = self.position + self._ready.samples
        was, now = (*self.shape, self._ready.format.name), (*_shape(frame), frame.format.name)
        message = f"the sound changes from {was} (rate, channels, samples) to {now} at frame {at}"
        return self.error(Cause.CORRUPT, message)

    def _take(self, samples: int) -> npt.NDArray[np.float32]:
        with self._decoder_errors():
            frame = self._ready.read(samples, partial=True) if samples else None
            if frame is None:
                return np.empty((0, self.shape[1]), np.float32)
            return to_float(frame.to_ndarray(), frame)

    @contextmanager
    def _decoder_errors(self, cause: Cause = Cause.CORRUPT) -> Iterator[None]:
        """Tell the store's errors, which the decoder swallowed, from the decoder's own."""
        try:
            yield
        except MemoryError:
            raise
        except _DECODER_ERRORS as error:
            self._file.raise_kept()
            at = self.position + self._ready.samples
            said = getattr(error, "strerror", None) or str(error)
            raise self.error(cause, f"FFmpeg: {said} (at frame {at})") from error
        self._file.raise_kept()

    def error(self, cause: Cause, message: str) -> RecordingError:
        """Make an error that says what could be read up to here."""
        frames = self.position + self._ready.samples
        audio = None
        if frames and cause in _DAMAGE:
            audio = replace(self.describe(), frames=frames, decoder=partial(self._decoder))
        return RecordingError(self._stage, cause, self._about + message, audio)

    def describe(self) -> AudioInfo:
        """Describe what was read so far."""
        names = self._container, self._codec, self._decoder
        return AudioInfo(*names, *self.shape, self.position, self._tags)


def _is_junk(packet: Any, codec: str) -> bool:
    """Tell whether a packet that does not decode is something beside the audio: a tag, zeros."""
    data = bytes(packet)
    if data.startswith((b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")) or not any(data):
        return True
    return codec in ("mp1", "mp2", "mp3") and mpeg.parse_frame(data[:4]) is None


def _shape(frame: Any) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels
