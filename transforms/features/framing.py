"""The overlapping frames of a chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PadMode = Literal["constant", "edge", "reflect", "symmetric"]

#: Maximum size of a block of frames and its spectrum together, so that they stay in cache.
_BLOCK_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class Framing:
    """Places of a chunk's frames.

    Attributes
    ----------
    frame_samples, hop_samples
        Length of a frame, and distance between the starts of two frames.
    before_samples, after_samples
        Length of the padding before and after the chunk. The first frame starts with the padding.
    n_frames
        Number of frames; not positive if the chunk is too short for one.
    """

    frame_samples: int
    hop_samples: int
    before_samples: int
    after_samples: int
    n_frames: int


def whole_frames(
    chunk_samples: int, frame_samples: int, hop_samples: int, padding_samples: int
) -> Framing:
    """Return the frames that lie completely in a chunk with the same padding on both sides.

    >>> whole_frames(66150, 2048, 512, 1024).n_frames
    130
    """
    samples = chunk_samples + 2 * padding_samples
    n_frames = 1 + (samples - frame_samples) // hop_samples
    return Framing(frame_samples, hop_samples, padding_samples, padding_samples, n_frames)


def frame_per_hop(chunk_samples: int, frame_samples: int, hop_samples: int) -> Framing:
    """Return one frame for each hop, in its middle: Kaldi's ``--snip-edges=false``.

    The number of frames is that of the hops, rounded (``feat/feature-window.cc``, ``NumFrames``).

    >>> frame_per_hop(16000, 400, 160)
    Framing(frame_samples=400, hop_samples=160, before_samples=120, after_samples=120, n_frames=100)
    """
    n_frames = (chunk_samples + hop_samples // 2) // hop_samples
    before = frame_samples // 2 - hop_samples // 2
    after = (n_frames - 1) * hop_samples + frame_samples - before - chunk_samples
    return Framing(frame_samples, hop_samples, before, max(0, after), n_frames)


class PaddedFrames:
    """The overlapping frames of one chunk at a time; the memory is allocated once.

    Parameters
    ----------
    framing
        Places of the frames.
    chunk_samples
        Length of each chunk.
    pad_mode
        Mode of the padding, as in ``numpy.pad``; ``constant`` pads with zeros.
    """

    def __init__(self, framing: Framing, chunk_samples: int, pad_mode: PadMode) -> None:
        """Allocate the padded chunk, and create the frames as views of it."""
        before, after = framing.before_samples, framing.after_samples
        padded = np.zeros(before + chunk_samples + after, np.float32)
        self._before, self._chunk, self._after = np.split(padded, [before, before + chunk_samples])
        frames = np.lib.stride_tricks.sliding_window_view(padded, framing.frame_samples)
        self._frames = frames[:: framing.hop_samples][: framing.n_frames]
        self._mirrored = pad_mode != "constant"
        if self._mirrored:
            source = np.pad(np.arange(chunk_samples), (before, after), mode=pad_mode)
            self._source_before = source[:before]
            self._source_after = source[before + chunk_samples :]

    def of(self, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frames of a chunk.

        Parameters
        ----------
        chunk
            Samples of shape [chunk_samples], float32. They are copied.

        Returns
        -------
        ndarray of shape [n_frames, frame_samples], float32, read-only
            View of the frames, valid until the next call.
        """
        self._chunk[:] = chunk
        if self._mirrored:
            self._before[:] = chunk[self._source_before]
            self._after[:] = chunk[self._source_after]
        return self._frames


def frame_blocks(n_frames: int, frame_samples: int) -> list[slice]:
    """Return slices that divide a chunk's frames into blocks that fit in the processor's cache.

    Parameters
    ----------
    n_frames, frame_samples
        Number of frames, and number of float32 samples per frame; at least 1 each.

    Returns
    -------
    list of slice
        Consecutive slices of equal length; the last slice may be shorter.

    Examples
    --------
    >>> frame_blocks(130, 2048)
    [slice(0, 65, None), slice(65, 130, None)]
    """
    max_length = max(1, _BLOCK_BYTES // (2 * frame_samples * np.dtype(np.float32).itemsize))
    length = math.ceil(n_frames / math.ceil(n_frames / max_length))
    return [slice(i, min(i + length, n_frames)) for i in range(0, n_frames, length)]
