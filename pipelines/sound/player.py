"""Plays a recording through the sound output of this machine, with miniaudio.

The recording is decoded block by block while it is played: a few blocks are in memory.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from melmill.pipelines.sound.wav import HEADER_BYTES, PART_SECONDS, WavFile, read_bytes
from melmill.transforms.core.errors import ConfigError, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.store.objects import StoredObject

if TYPE_CHECKING:
    import miniaudio

#: Length of the device's buffer, and of a piece that is passed to it at once.
_BUFFER_MS, _PIECE_SECONDS = 200, 0.5
#: Number of pieces that are decoded ahead.
_AHEAD = 8
#: Seconds between two looks at whether the device still plays.
_WAIT_SECONDS = 0.1

_NO_DEVICE = (
    "no sound output on this machine ({reason}): connect one or start its sound server, or play "
    "with melmill explore, whose sound comes from the browser"
)


def play(
    source: StoredObject,
    audio: AudioInfo,
    at_second: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
    *,
    backend: str | None = None,
    progress: Callable[[float], None] = lambda second: None,
) -> None:
    """Play a part of a recording, and return when it has been heard.

    One or two channels are played as they are; of more channels, the mean. Rates below 8 kHz and
    above 96 kHz are resampled.

    Parameters
    ----------
    source, audio
        Recording, and the result of its probe.
    at_second
        Second at which to start.
    seconds
        Length to play; ``None`` for up to the end.
    channel
        Channel to play, from 0; ``None`` for all.
    backend
        Sound system, by miniaudio's name (``alsa``, ``pulseaudio``; ``null`` plays nowhere);
        ``None`` for the first that works.
    progress
        Function that is called with the second that was passed to the device.

    Raises
    ------
    ConfigError
        The recording is shorter, or lacks the channel; there is no sound output, or no such
        backend.
    RecordingError
        The recording cannot be decoded; what is before was played.
    """
    first = WavFile(audio, channel=channel)
    whole = audio.frames / audio.sample_rate_hz
    if at_second >= whole:
        raise ConfigError(f"--at {at_second:g}: the recording has {whole:.2f} s")
    stop = whole if seconds is None else min(whole, at_second + seconds)
    with (
        _open_device(first, backend) as device,
        open_audio(
            source, audio, round(at_second * audio.sample_rate_hz), must_be_finite=False
        ) as r,
    ):
        pieces = (
            piece
            for file, start, end in _parts(audio, channel, at_second, stop)
            for piece in _pieces(file, read_bytes(r, file, start, end))
        )
        _Feeder(device, first, at_second, progress).play(pieces)


def _parts(
    audio: AudioInfo, channel: int | None, at_second: float, stop_second: float
) -> Iterator[tuple[WavFile, int, int]]:
    """Yield the parts of a recording to play, each with the first and the end of its bytes."""
    part = int(at_second // PART_SECONDS)
    while part * PART_SECONDS < stop_second:
        file, before = WavFile(audio, part, channel), part * PART_SECONDS
        first, stop = (
            min(file.frames, max(0, round((second - before) * file.rate_hz)))
            for second in (at_second, stop_second)
        )
        first_byte, end = (HEADER_BYTES + frame * file.frame_bytes for frame in (first, stop))
        yield file, first_byte, end
        if part + 1 == file.parts:
            return
        part += 1


def _pieces(file: WavFile, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield bytes in pieces of half a second."""
    size = max(1, round(_PIECE_SECONDS * file.rate_hz)) * file.frame_bytes
    for block in blocks:
        for start in range(0, len(block), size):
            yield block[start : start + size]


class _Feeder:
    """Passes pieces to a device, which takes them in a thread of its own."""

    def __init__(
        self,
        device: miniaudio.PlaybackDevice,
        file: WavFile,
        at_second: float,
        progress: Callable[[float], None],
    ) -> None:
        self._device, self._file = device, file
        self._second, self._progress = at_second, progress
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._ended = threading.Event()

    def play(self, pieces: Iterator[bytes]) -> None:
        callback = self._callback()
        next(callback)
        self._put(next(pieces, None))
        self._device.start(callback)
        self._device.stop_callback = self._ended.set  # the device is gone
        try:
            for piece in pieces:
                self._put(piece)
        except RecordingError:
            self._finish()  # what was decoded before is still heard
            raise
        self._finish()

    def _finish(self) -> None:
        self._put(None)
        while not self._ended.wait(_WAIT_SECONDS):
            self._report()
        self._report()
        # The device still has what it took last.
        threading.Event().wait(2 * _BUFFER_MS / 1000)

    def _put(self, piece: bytes | None) -> None:
        while not self._ended.is_set():
            try:
                self._pieces.put(piece, timeout=_WAIT_SECONDS)
                return
            except queue.Full:
                self._report()

    def _report(self) -> None:
        self._progress(self._second)

    def _callback(self) -> Generator[bytes, int, None]:
        """Receive the number of frames that the device wants, and yield their bytes."""
        rest, wanted = b"", (yield b"")
        while True:
            size = wanted * self._file.frame_bytes
            while len(rest) < size:
                try:
                    piece = self._pieces.get_nowait()
                except queue.Empty:
                    break  # decoding is late: the device plays what there is, and then silence
                if piece is None:
                    self._second += len(rest) / self._file.frame_bytes / self._file.rate_hz
                    self._ended.set()
                    yield rest
                    return
                rest += piece
            taken, rest = rest[:size], rest[size:]
            self._second += len(taken) / self._file.frame_bytes / self._file.rate_hz
            wanted = yield taken


@contextlib.contextmanager
def _open_device(file: WavFile, backend: str | None) -> Iterator[miniaudio.PlaybackDevice]:
    import miniaudio

    with _without_stderr():
        try:
            device = miniaudio.PlaybackDevice(
                miniaudio.SampleFormat.SIGNED16,
                file.channels,
                file.rate_hz,
                _BUFFER_MS,
                backends=_backends(backend),
                app_name="melmill",
            )
        except miniaudio.MiniaudioError as error:
            reason = ", ".join(map(str, error.args))
            raise ConfigError(_NO_DEVICE.format(reason=f"miniaudio: {reason}")) from error
    with contextlib.closing(device):
        yield device


def _backends(name: str | None) -> Sequence[Any]:
    """Return the sound systems to try: all that play, or the one with a name."""
    from miniaudio import Backend

    if name is None:
        return [backend for backend in Backend if backend.name not in ("NULL", "CUSTOM")]
    known = {backend.name.lower(): backend for backend in Backend}
    if name not in known:
        raise ConfigError(f"--backend {name!r}: must be one of {', '.join(known)}")
    return [known[name]]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence what ALSA's library prints when there is no device: a line for each of its names."""
    kept, silenced = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silenced, 2)
    os.close(silenced)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
