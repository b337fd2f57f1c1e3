"""One pass over a recording's samples, by the decoder that its probe chose."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode import libsndfile
from melmill.transforms.decode.decoders import is_mended, library, partial
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.store.stored_file import StoredFile

#: What decoders say of a recording that their probe had read.
DECODERS_CAUSES = frozenset({Cause.TRUNCATED, Cause.CORRUPT, Cause.UNKNOWN_FORMAT, Cause.NO_AUDIO})
#: Frames read at once while counting: a decoder loses what it has of a block at an error.
_COUNTED_FRAMES = 1024


class Stream(Protocol):
    """An open recording that is read straight on."""

    position: int

    def seek(self, start: int) -> None:
        """Move to `start` where that is exact; else stay, to be read forward."""
        ...

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Read on: float32 [frames, channels], shorter only at the end."""
        ...

    def leaves_audio(self) -> bool:
        """Tell, at the end, whether there may be audio that the decoder does not come to."""
        ...

    def close(self) -> None:
        """Give back the decoder's memory."""
        ...


def open_stream(file: StoredFile, audio: AudioInfo) -> Stream:
    """Open a recording from its start."""
    if is_mended(audio.decoder):
        file = file.splice(examine_header(file).pieces)
    if library(audio.decoder) == "libsndfile":
        return libsndfile.SndfileStream(file, audio)
    from melmill.transforms.decode import pyav  # loads FFmpeg's libraries: not for every process

    about = audio.container
    return pyav.PyavStream(file, audio, "", about, audio.decoder)


def count_frames(file: StoredFile, audio: AudioInfo) -> int:
    """Count the frames that decode, from the start up to the first damage or the end.

    At a damage the count is a multiple of 1,024. Depends on the file alone.
    """
    everything = replace(audio, decoder=partial(audio.decoder))
    frames = 0
    try:
        with closing(open_stream(file, everything)) as stream:
            while frames < audio.frames:
                got = len(stream.read(min(_COUNTED_FRAMES, audio.frames - frames)))
                frames += got
                if not got:
                    break
    except RecordingError as error:
        if error.cause not in DECODERS_CAUSES:
            raise
    return frames
