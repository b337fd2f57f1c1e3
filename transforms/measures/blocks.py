"""Blocks: the pieces of a recording that meters measure.

Blocks are aligned to the recording's first frame, and their length depends only on the sample rate
and the number of channels. Each block comes with the samples around it. So the readings of a block
do not depend on the way in which the recording was divided among workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

#: Maximum number of hops in a block.
_HOPS = 20
#: Maximum number of samples in a block of more than one hop, all channels together.
_MAX_SAMPLES = 1 << 19


@dataclass(frozen=True, slots=True)
class Shape:
    """The sample rate and the channels of a recording; they determine its blocks.

    Attributes
    ----------
    rate_hz, channels
        Sample rate and number of channels.

    Examples
    --------
    >>> shape = Shape(44_100, 2)
    >>> shape.hop_frames, shape.block_frames, Shape(192_000, 64).block_frames
    (4410, 88200, 19200)
    """

    rate_hz: int
    channels: int

    @property
    def hop_frames(self) -> int:
        """Number of frames in a hop of 100 ms, rounded as in libebur128."""
        return max(1, (self.rate_hz + 5) // 10)

    @property
    def block_frames(self) -> int:
        """Number of frames in a block: whole hops, at most two seconds."""
        hops = _MAX_SAMPLES // (self.hop_frames * self.channels)
        return self.hop_frames * min(_HOPS, max(1, hops))

    @property
    def around_frames(self) -> int:
        """Number of frames that a block has before and after it, unless the recording ends."""
        return self.hop_frames


@dataclass(frozen=True, eq=False)
class Block:
    """A block of a recording, with the samples around it.

    Attributes
    ----------
    around : float32 [channels, before + frames + after]
        Samples of the block, of :attr:`Shape.around_frames` frames before it, and of as many after
        it; less where the recording starts or ends. The array is overwritten by the next block.
    before, frames
        Number of frames before the block, and in the block.
    start
        First frame of the block, counted from the start of the recording.
    shape
        Sample rate and number of channels.
    """

    around: Samples
    before: int
    frames: int
    start: int
    shape: Shape

    @property
    def samples(self) -> Samples:
        """Samples of the block itself, float32 [channels, frames]; a view, one plane a channel."""
        return self.around[:, self.before : self.before + self.frames]

    @cached_property
    def energies(self) -> npt.NDArray[np.float64]:
        """Sum of squares of each hop, float64 [channels, hops]; several meters need it."""
        return hop_energies(self.samples, self.shape.hop_frames)

    @property
    def is_first(self) -> bool:
        """Whether the recording starts with this block."""
        return self.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the recording ends with this block."""
        return bool(self.around.shape[1] == self.before + self.frames)


class BlockCutter:
    """Cuts decoded frames into the blocks of a part of a recording.

    Parameters
    ----------
    shape
        Sample rate and number of channels.
    start, stop
        Part to measure, in frames. `start` is a multiple of :attr:`Shape.block_frames`; so is
        `stop`, unless it is the end of the recording.
    total
        Number of frames in the recording.
    """

    def __init__(self, shape: Shape, start: int, stop: int, total: int) -> None:
        self._shape, self._stop, self._total = shape, stop, total
        self._block_start = start
        self._buffer_start = self._position = first_frame(start, shape)
        frames = shape.block_frames + 2 * shape.around_frames
        self._buffer = np.empty((shape.channels, frames), np.float32)

    def cut(self, piece: Samples) -> Iterator[Block]:
        """Yield the blocks that are complete with the next frames.

        Parameters
        ----------
        piece : float32 [frames, channels]
            Frames that follow those before; the first are from :func:`first_frame` on. Frames after
            :func:`last_frame` are ignored.
        """
        while self._block_start < self._stop:
            block_stop = min(self._stop, self._block_start + self._shape.block_frames)
            wanted = last_frame(block_stop, self._shape, self._total)
            taken = piece[: wanted - self._position]
            at = self._position - self._buffer_start
            self._buffer[:, at : at + len(taken)] = taken.T
            self._position += len(taken)
            piece = piece[len(taken) :]
            if self._position < wanted:
                return
            around = self._buffer[:, : wanted - self._buffer_start]
            before, frames = self._block_start - self._buffer_start, block_stop - self._block_start
            yield Block(around, before, frames, self._block_start, self._shape)
            self._begin_next(block_stop)

    def _begin_next(self, block_start: int) -> None:
        first = first_frame(block_start, self._shape)
        kept = self._buffer[:, first - self._buffer_start : self._position - self._buffer_start]
        self._buffer[:, : kept.shape[1]] = kept.copy()
        self._block_start, self._buffer_start = block_start, first


def first_frame(start: int, shape: Shape) -> int:
    """Return the first frame that is needed to measure from a frame on."""
    return max(0, start - shape.around_frames)


def last_frame(stop: int, shape: Shape, total: int) -> int:
    """Return the end of the frames that are needed to measure up to a frame."""
    return min(total, stop + shape.around_frames)


def hop_energies(samples: npt.NDArray[np.float32], hop: int) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each hop, float64 [channels, hops]; the last may be shorter.

    A sum is limited to the largest number of float32.

    >>> hop_energies(np.array([[1, 2, 3]], np.float32), 2).tolist()
    [[5.0, 9.0]]
    """
    return hop_products(samples, samples, hop)


def hop_products(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], hop: int
) -> npt.NDArray[np.float64]:
    """Return the sum of products of each hop; see :func:`hop_energies`."""
    hops = left.shape[1] // hop
    whole, channels = hops * hop, len(left)
    parts = [
        (
            left[:, :whole].reshape(channels, hops, hop),
            right[:, :whole].reshape(channels, hops, hop),
        ),
        (left[:, None, whole:], right[:, None, whole:]),
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [np.einsum("chk,chk->ch", *part) for part in parts if part[0].size]
    largest = float(np.finfo(np.float32).max)
    products: npt.NDArray[np.float64] = np.concatenate(sums, axis=1).astype(np.float64)
    limited: npt.NDArray[np.float64] = np.clip(np.nan_to_num(products), -largest, largest)
    return limited
