"""Reading an open recording: its blocks are exact, complete and finite, or an error says why."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile
from melmill.transforms.decode.damage import ask_other, explain, mismatch
from melmill.transforms.decode.decoder_names import is_partial, library
from melmill.transforms.decode.streams import DECODERS_CAUSES, Stream, open_stream
from melmill.transforms.store.stored_file import StoredFile

#: Frames per read while skipping to the first requested frame.
_SKIP_FRAMES = 1 << 16
#: Codecs whose length comes from a header that only a decode can check.
_UNCOUNTED = frozenset({"mp3", "opus", "vorbis"})


class Reader:
    """An open recording; see :class:`~melmill.transforms.decode.decoders.AudioReader`.

    Parameters
    ----------
    file
        Open file; :meth:`close` does not close it.
    audio
        Result of the probe.
    must_be_finite
        Whether NaN and infinity are errors.
    """

    def __init__(self, file: StoredFile, audio: AudioInfo, *, must_be_finite: bool = True) -> None:
        self.audio = audio
        self._file = file
        self._is_checked = must_be_finite and audio.codec not in libsndfile.INTEGER
        self._stream = self._open()
        self._has_sought = False

    def _open(self) -> Stream:
        try:
            return open_stream(self._file, self.audio)
        except RecordingError as error:
            raise explain(self._file, self.audio, error) from error

    def close(self) -> None:
        """Free the decoder's memory."""
        self._stream.close()

    def blocks(self, start: int, stop: int, block_frames: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the decoded frames from `start` up to `stop`."""
        if not 0 <= start <= stop <= self.audio.frames or block_frames < 1:
            message = f"cannot read frames {start} to {stop} in blocks of {block_frames}"
            raise ValueError(f"{message}: the recording has {self.audio.frames} frames")
        self._go_to(start)
        for first in range(start, stop, block_frames):
            yield self._read(min(block_frames, stop - first))

    def finish(self) -> None:
        """Read to the end if that is needed to check the length in the header."""
        if self.audio.codec in _UNCOUNTED and self._stream.position < self.audio.frames:
            self._go_to(self.audio.frames)

    def _go_to(self, start: int) -> None:
        before = self._stream.position
        if start < before:
            self._restart()
            before = 0
        try:
            self._stream.seek(start)
            self._has_sought = self._has_sought or self._stream.position != before
        except RecordingError as error:
            if error.cause not in DECODERS_CAUSES:
                raise
            self._restart()  # a corrupt seek table does not damage the audio
        self._read_up_to(start)

    def _restart(self) -> None:
        self._stream.close()
        self._stream = self._open()
        self._has_sought = False

    def _read_up_to(self, start: int) -> None:
        while missing := start - self._stream.position:
            self._read(min(missing, _SKIP_FRAMES))

    def _read(self, frames: int) -> npt.NDArray[np.float32]:
        first = self._stream.position
        try:
            block = self._stream.read(frames)
            if len(block) < frames:
                end, library_name = first + len(block), library(self.audio.decoder)
                message = f"{library_name} ends at frame {end} of {self.audio.frames}"
                raise RecordingError(Stage.DECODE, Cause.TRUNCATED, message)
        except RecordingError as error:
            explained = explain(self._file, self.audio, error)
            if explained is error and error.cause in DECODERS_CAUSES and self._has_sought:
                self._restart()
                self._read_up_to(first)
                return self._read(frames)
            raise explained from error
        if self._is_checked:
            _require_finite(block, first)
        # Check here, because a caller that has the last frame does not read again.
        if self._stream.position == self.audio.frames:
            self._check_end()
        return block

    def _check_end(self) -> None:
        """Raise RecordingError if the recording continues after the end that its probe found."""
        if is_partial(self.audio.decoder) or not self._stream.leaves_audio():
            return
        second = ask_other(self._file, self.audio)
        if second is not None and second.frames > self.audio.frames:
            raise mismatch(self._file, self.audio, second)


def _require_finite(block: npt.NDArray[np.float32], first: int) -> None:
    # If the sum of squares is finite, every sample is. It costs a hundredth of the decoding
    # time. The sum may also overflow; then check each sample.
    samples = block.ravel(order="K")
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.dot(samples, samples)
    if math.isfinite(energy) or np.isfinite(samples).all():
        return
    frame, channel = np.argwhere(~np.isfinite(block))[0]
    message = f"sample {first + frame} of channel {channel} is {block[frame, channel]}"
    raise RecordingError(Stage.DECODE, Cause.NON_FINITE, message)
