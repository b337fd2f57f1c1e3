"""Decoding with PyAV (FFmpeg): all files that libsndfile cannot decode completely.

We have no proof that seeking is exact in FFmpeg's demuxers, so each stream is decoded from its
start. The frames are counted by a decode, because containers round their durations, and the
encoder's padding is removed in some formats and not in others.
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
from melmill.transforms.decode.decoder_names import is_partial, partial
from melmill.transforms.decode.sample_formats import to_float
from melmill.transforms.decode.tags import keep_tags
from melmill.transforms.store.stored_file import StoredFile

#: Errors that PyAV raises for a corrupt file. Fuzzing found more than PyAV's own classes:
#: UnicodeDecodeError, IndexError, EOFError.
_DECODER_ERRORS = (
    *(av.error.FFmpegError, OSError, EOFError),
    *(ValueError, LookupError, ArithmeticError),
)
#: Options that allow only audio containers that FFmpeg identifies by a magic word. They exclude
#: formats that FFmpeg detects in any text (captions, synthesiser scripts). They also exclude
#: playlists: a recording is one file, and must not make a worker open other files.
_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": (
        "aac,ac3,aiff,amr,ape,asf,au,avi,avr,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,loas,"
        "matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,shn,"
        "sox,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"
    ),
}
#: Demuxers whose duration comes from the file, not from FFmpeg's estimate by the bit rate.
_CLAIMING = frozenset(
    {"mov", "matroska", "flac", "caf", "wav", "aiff", "flv"}
    | {"ape", "mpc", "mpc8", "tak", "tta", "wv"}
)
#: Tolerance between the claimed and the decoded duration: durations are rounded, and some
#: include padding.
_SLACK_SECONDS = 0.5
#: Frames that FFmpeg may decode too many in Ogg Vorbis: it decodes the last block completely,
#: although the last position cuts it.
_VORBIS_SURPLUS = 8192
#: Formats of frames without a container; other data may lie between the frames.
_BARE = frozenset({"mp3", "aac", "ac3", "eac3", "dts"})
#: Codecs whose frames have checksums. FFmpeg compares them only if it is told to; otherwise it
#: gives other samples for most damaged frames, and reports no error.
_CHECKED = frozenset({"flac", "wavpack", "tta", "ac3", "eac3"})
#: Causes of errors after which the start of a recording can still be read.
_DAMAGE = (Cause.CORRUPT, Cause.TRUNCATED)
_DEFAULT = av.stream.Disposition.default
_COVER = av.stream.Disposition.attached_pic


def probe(file: StoredFile, header: Header, decoder: str = "pyav") -> AudioInfo:
    """Return a description of a file's audio; the frames are counted by decoding the file.

    Parameters
    ----------
    file
        File to decode; it is read to its end.
    header
        Header of the file.
    decoder
        Value for :attr:`AudioInfo.decoder`.

    Raises
    ------
    RecordingError
        ``unknown_format``, ``no_audio``, ``truncated``, or ``corrupt``.
    """
    about = header.irregularity or header.mended
    with closing(PyavStream(file, None, about, header.container, decoder)) as stream:
        # Read the duration first: FFmpeg changes it when it reaches the last packet.
        claimed = stream.claimed_seconds()
        while stream.skip():
            pass
        rate = stream.shape[0]
        if claimed is not None and stream.position < (claimed - _SLACK_SECONDS) * rate:
            decoded = stream.position / rate
            message = f"the file claims {claimed:.3f} s, but only {decoded:.3f} s decode"
            raise stream.error(Cause.TRUNCATED, message)
        return stream.describe()


def _container_name(container: Any) -> str:
    """Return the name of the container.

    FFmpeg names a demuxer after all its formats (``mov,mp4,m4a,3gp,3g2,mj2``). The first name
    is used; for ``mov`` it is ``mp4`` with a video stream, otherwise ``m4a``.
    """
    name = str(container.format.name).partition(",")[0]
    if name == "mov":
        pictures = [s for s in container.streams.video if not s.disposition & _COVER]
        return "mp4" if pictures else "m4a"
    return name


class PyavStream:
    """One pass over the samples of a file's default audio stream, or of the first one.

    Parameters
    ----------
    file
        Open file; :meth:`close` does not close it.
    audio
        Result of the probe; ``None`` while probing.
    about
        Description of the file's fault, for messages.
    container
        Name of the file's format; if empty, FFmpeg's name is used.
    decoder
        Value for :attr:`AudioInfo.decoder`.

    Attributes
    ----------
    position
        Number of frames read so far.
    shape
        Sample rate and number of channels.
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
        # Sample rate and channels come from the first frame: for HE-AAC a container may give half.
        self.shape = (0, 0)
        self._frames_before_zero = 0
        self._ready = av.AudioFifo()
        file.seek(0)
        with self._decoder_errors(Cause.UNKNOWN_FORMAT):
            self.container = av.open(
                file, "r", container_options=_OPTIONS, metadata_errors="replace"
            )
            self.stream = self._choose_stream()
            self._container = container or _container_name(self.container)
            # Read the tags first: FFmpeg may change them when it reaches the last packet.
            self._tags = keep_tags({**self.container.metadata, **self.stream.metadata})
            context = self.stream.codec_context
            self._codec = str(context.codec.canonical_name)
            # More threads would use the cores of other processes.
            context.thread_count = 1
            if self._codec in _CHECKED:
                context.options = {"err_detect": "crccheck+explode"}
        self._frames = self._decode_packets()
        self._fill(1)
        if not self._ready.samples:
            raise self.error(Cause.NO_AUDIO, "no samples can be decoded")
        self._require_unchanged(audio)
        if self._is_ogg_vorbis():
            self._fill(self._frames_before_zero)
            self._take(self._frames_before_zero)

    def _choose_stream(self) -> Any:
        streams = [s for s in self.container.streams.audio if s.codec_context is not None]
        if not streams:
            raise self.error(Cause.NO_AUDIO, "the file has no audio stream that can be decoded")
        return next((stream for stream in streams if stream.disposition & _DEFAULT), streams[0])

    def _require_unchanged(self, audio: AudioInfo | None) -> None:
        if audio is not None and self.shape != (audio.sample_rate_hz, audio.channels):
            probed = audio.sample_rate_hz, audio.channels
            message = f"(rate, channels) was {probed} when probed, it is now {self.shape}"
            raise self.error(Cause.CHANGED, message)

    def close(self) -> None:
        """Free the decoder's memory."""
        self.container.close()

    def claimed_seconds(self) -> float | None:
        """Return the duration that the file claims; ``None`` if it claims none."""
        kind = self.container.format.name.partition(",")[0]
        if kind not in _CLAIMING:
            return None
        if self.stream.duration is not None:
            return float(self.stream.duration * self.stream.time_base)
        # A container's duration is that of its longest stream, which may be the video.
        is_only_stream = len(self.container.streams) == 1
        duration = self.container.duration if is_only_stream else None
        if duration is None:
            return None
        # Matroska's duration counts from 0, even if the first time stamp is later.
        return float((duration - max(0, self.container.start_time or 0)) / av.time_base)

    def seek(self, start: int) -> None:
        """Do nothing: FFmpeg does not seek exactly, the caller reads forward."""

    def skip(self) -> int:
        """Discard the frames that the decoder has ready, and return their number; 0 at the end."""
        self._fill(1)
        skipped = len(self._take(self._ready.samples))
        self.position += skipped
        return skipped

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Return the next frames.

        Returns
        -------
        float32 [frames, channels]
            Block that is shorter than requested only where decoding ends.
        """
        self._fill(frames)
        block = self._take(frames)
        self.position += len(block)
        self._require_no_more()
        return block

    def leaves_audio(self) -> bool:
        """Return false: :meth:`read` already checks whether audio follows."""
        return False

    def _is_ogg_vorbis(self) -> bool:
        """Return whether the stream is Ogg Vorbis, where positions mark the sound's start and end.

        FFmpeg also decodes samples before position 0 and after the last position. (libsndfile
        drops the same number of samples as lie before 0, but not always the same samples.)
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
            message = f"FFmpeg decodes {self.position} frames, but {audio.frames} were expected"
            raise RecordingError(
                self._stage, Cause.LENGTH_MISMATCH, self._about + message, self.describe()
            )

    def _fill(self, samples: int) -> None:
        """Decode until this number of samples is ready, or to the end."""
        # A frame is a fiftieth of a second, so work per frame can cost as much as its decoding.
        missing = samples - self._ready.samples
        with self._decoder_errors():
            while missing > 0 and (frame := next(self._frames, None)) is not None:
                if count := frame.samples:
                    self._queue_frame(frame)
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

    def _queue_frame(self, frame: Any) -> None:
        if not self.shape[0]:
            self.shape = _shape(frame)
            start = round((frame.pts or 0) * frame.time_base * frame.sample_rate)
            self._frames_before_zero = max(0, -start)
        # The queue does not check the channels, and would read outside the frame's memory.
        elif frame.layout.nb_channels != self.shape[1]:
            raise self._change_error(frame)
        frame.pts = None  # otherwise the queue requires that it continues the previous frame
        try:
            self._ready.write(frame)
        except ValueError as error:  # the sample rate or the sample format changed
            raise self._change_error(frame) from error

    def _change_error(self, frame: Any) -> RecordingError:
        at = self.position + self._ready.samples
        old, new = (*self.shape, self._ready.format.name), (*_shape(frame), frame.format.name)
        message = f"(rate, channels, sample format) changes from {old} to {new} at frame {at}"
        return self.error(Cause.CORRUPT, message)

    def _take(self, samples: int) -> npt.NDArray[np.float32]:
        with self._decoder_errors():
            frame = self._ready.read(samples, partial=True) if samples else None
            if frame is None:
                return np.empty((0, self.shape[1]), np.float32)
            return to_float(frame.to_ndarray(), frame)

    @contextmanager
    def _decoder_errors(self, cause: Cause = Cause.CORRUPT) -> Iterator[None]:
        """Raise an error of the store, which the decoder hides, or else the decoder's own error."""
        try:
            yield
        except MemoryError:
            raise
        except _DECODER_ERRORS as error:
            self._file.raise_kept()
            at = self.position + self._ready.samples
            message = getattr(error, "strerror", None) or str(error)
            raise self.error(cause, f"FFmpeg: {message} (at frame {at})") from error
        self._file.raise_kept()

    def error(self, cause: Cause, message: str) -> RecordingError:
        """Return an error; its ``audio`` is the part that was decoded so far."""
        frames = self.position + self._ready.samples
        audio = None
        if frames and cause in _DAMAGE:
            audio = replace(self.describe(), frames=frames, decoder=partial(self._decoder))
        return RecordingError(self._stage, cause, self._about + message, audio)

    def describe(self) -> AudioInfo:
        """Return a description of the audio that was read so far."""
        names = self._container, self._codec, self._decoder
        return AudioInfo(*names, *self.shape, self.position, self._tags)


def _is_junk(packet: Any, codec: str) -> bool:
    """Return whether a packet that does not decode is not audio: a tag or zeros."""
    data = bytes(packet)
    if data.startswith((b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")) or not any(data):
        return True
    return codec in ("mp1", "mp2", "mp3") and mpeg.parse_frame(data[:4]) is None


def _shape(frame: Any) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels
