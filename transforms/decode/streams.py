"""Streams: one pass over a recording's samples, with the decoder that its probe chose."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile
from melmill.transforms.decode.decoder_names import is_mended, library, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.stored_file import StoredFile

#: Causes of the errors that a decoder raises for a damaged recording after a successful probe.
DECODERS_CAUSES = frozenset({Cause.TRUNCATED, Cause.CORRUPT, Cause.UNKNOWN_FORMAT, Cause.NO_AUDIO})
#: Frames per read while counting. At an error, a decoder loses the block that it was reading.
_COUNTED_FRAMES = 1024


class Stream(Protocol):
    """An open recording that is read forward.

    Attributes
    ----------
    position
        Number of the next frame.
    """

    position: int

    def seek(self, start: int) -> None:
        """Move to `start` if seeking is exact; otherwise do nothing, the caller reads forward."""
        ...

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Return the next frames: float32 [frames, channels], shorter only at the end."""
        ...

    def leaves_audio(self) -> bool:
        """Return whether, at the end, the file may contain audio that was not decoded."""
        ...

    def close(self) -> None:
        """Free the decoder's memory."""
        ...


def open_stream(file: StoredFile, audio: AudioInfo) -> Stream:
    """Return a stream that begins at the start of a recording."""
    if is_mended(audio.decoder):
        file = file.splice(examine_header(file).pieces)
    if library(audio.decoder) == "libsndfile":
        return libsndfile.SndfileStream(file, audio)
    # Imported here because it loads FFmpeg's libraries, which not every process needs.
    from melmill.transforms.decode import pyav

    about = audio.container
    return pyav.PyavStream(file, audio, "", about, audio.decoder)


def count_frames(file: StoredFile, audio: AudioInfo) -> int:
    """Return the number of frames that decode, from the start to the first damage or the end.

    At a damage the count is a multiple of 1,024. The count depends only on the file.
    """
    everything = replace(audio, decoder=partial(audio.decoder))
    frames = 0
    try:
        with closing(open_stream(file, everything)) as stream:
            while frames < audio.frames:
                count = len(stream.read(min(_COUNTED_FRAMES, audio.frames - frames)))
                frames += count
                if not count:
                    break
    except RecordingError as error:
        if error.cause not in DECODERS_CAUSES:
            raise
    return frames
