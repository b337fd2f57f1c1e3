"""Where the equally long chunks of a recording lie: integer arithmetic, and cutting.

Chunk ``i`` covers samples ``[i·hop, i·hop + length)`` of its recording (or of the
segment that the catalogue asks for), at the target sample rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

Samples = npt.NDArray[np.float32]
Tail = Literal["drop", "pad", "shift_back"]
Short = Literal["drop", "pad", "repeat"]


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """How a recording is cut.

    Attributes
    ----------
    length, hop
        Samples in a chunk, and from one chunk's start to the next's. A hop smaller than
        the length makes chunks overlap, a larger one leaves gaps.
    tail
        What becomes of real samples behind the last whole chunk: dropped, padded to a
        whole chunk, or covered by a chunk shifted back to end with the recording.
    short
        What becomes of a recording shorter than one chunk: dropped, padded, or repeated
        until the chunk is full.
    pad_value
        The sample value that padding is filled with.
    """

    length: Annotated[int, Ge(1)]
    hop: Annotated[int, Ge(1)]
    tail: Tail = "drop"
    short: Short = "pad"
    pad_value: float = 0.0


def resampled_length(frames: int, rate_hz: int, target_rate_hz: int) -> int:
    """Samples that ``frames`` at one rate are at another, as ``librosa.resample`` counts.

    >>> resampled_length(44_100, 44_100, 22_050)
    22050
    >>> resampled_length(3, 44_100, 22_050)
    2
    """
    return -(-frames * target_rate_hz // rate_hz)


def count_chunks(samples: int, spec: ChunkSpec) -> int:
    """Count the chunks of a recording of so many samples.

    >>> spec = ChunkSpec(length=10, hop=10)
    >>> [count_chunks(n, spec) for n in (0, 9, 10, 19, 20, 25)]
    [0, 1, 1, 1, 2, 2]
    >>> count_chunks(25, ChunkSpec(10, 10, tail="pad"))
    3
    >>> count_chunks(25, ChunkSpec(10, 5, tail="shift_back"))
    4
    >>> count_chunks(9, ChunkSpec(10, 10, short="drop"))
    0

    With a hop longer than a chunk, a tail that lies wholly in the gap is no tail:

    >>> [count_chunks(n, ChunkSpec(10, 15, tail="pad")) for n in (10, 15, 16)]
    [1, 1, 2]
    """
    if samples <= 0:
        return 0
    if samples < spec.length:
        return 0 if spec.short == "drop" else 1
    whole = 1 + (samples - spec.length) // spec.hop
    if spec.tail == "drop":
        return whole
    return whole + _has_tail(samples, whole, spec)


def _has_tail(samples: int, whole: int, spec: ChunkSpec) -> bool:
    covered = (whole - 1) * spec.hop + spec.length
    return samples > max(covered, whole * spec.hop)


def chunk_start(index: int, samples: int, spec: ChunkSpec) -> int:
    """First sample of chunk ``index`` in a recording of so many samples.

    >>> spec = ChunkSpec(length=10, hop=10, tail="shift_back")
    >>> [chunk_start(i, 25, spec) for i in range(3)]
    [0, 10, 15]
    >>> chunk_start(2, 25, ChunkSpec(10, 10, tail="pad"))
    20
    """
    start = index * spec.hop
    if spec.tail == "shift_back" and samples >= spec.length:
        return min(start, samples - spec.length)
    return start


def valid_samples(index: int, samples: int, spec: ChunkSpec) -> int:
    """Real samples in chunk ``index``; the rest of its length is padding or repetition.

    >>> spec = ChunkSpec(length=10, hop=10, tail="pad")
    >>> [valid_samples(i, 25, spec) for i in range(3)]
    [10, 10, 5]
    """
    return min(spec.length, samples - chunk_start(index, samples, spec))


def fill_short(chunk: Samples, spec: ChunkSpec) -> Samples:
    """Fill a chunk that has too few samples, as the policies say.

    Parameters
    ----------
    chunk : float32 [samples, channels]
        The real samples, ``spec.length`` of them at the most.
    spec
        Its ``short`` policy is asked only by whoever cuts a short recording; a tail is
        always padded.

    Returns
    -------
    float32 [length, channels]

    Examples
    --------
    >>> two = np.array([[1], [2]], np.float32)
    >>> fill_short(two, ChunkSpec(5, 5, short="repeat")).ravel().tolist()
    [1.0, 2.0, 1.0, 2.0, 1.0]
    >>> fill_short(two, ChunkSpec(5, 5, short="pad", pad_value=9)).ravel().tolist()
    [1.0, 2.0, 9.0, 9.0, 9.0]
    """
    if spec.short == "repeat":
        times = -(-spec.length // len(chunk))
        return np.tile(chunk, (times, 1))[: spec.length]
    return pad_chunk(chunk, spec)


def pad_chunk(chunk: Samples, spec: ChunkSpec) -> Samples:
    """Pad a chunk to its length with the pad value.

    >>> pad_chunk(np.ones((2, 1), np.float32), ChunkSpec(3, 3)).ravel().tolist()
    [1.0, 1.0, 0.0]
    """
    padded = np.full((spec.length, chunk.shape[1]), spec.pad_value, np.float32)
    padded[: len(chunk)] = chunk
    return padded


def cut_chunks(
    blocks: Iterator[Samples], first: int, stop: int, samples: int, spec: ChunkSpec
) -> Iterator[tuple[int, Samples]]:
    """Cut chunks ``first`` to ``stop`` out of a stream, holding little more than one of them.

    Parameters
    ----------
    blocks : float32 [any, channels]
        Consecutive samples, the first of them the first sample of chunk ``first``, the last
        of them the last real sample of chunk ``stop - 1`` or any later one.
    first, stop
        Chunk indices, ``stop`` excluded.
    samples
        Length of the whole recording (or segment), which the last chunk depends on.
    spec
        How the recording is cut.

    Yields
    ------
    (int, float32 [length, channels])
        The chunk's index and its samples.

    Examples
    --------
    >>> stream = iter([np.arange(7, dtype=np.float32)[:, None]])
    >>> [(i, c.ravel().tolist()) for i, c in cut_chunks(stream, 0, 2, 7, ChunkSpec(4, 4, "pad"))]
    [(0, [0.0, 1.0, 2.0, 3.0]), (1, [4.0, 5.0, 6.0, 0.0])]
    """
    held = next(blocks)
    held_start = chunk_start(first, samples, spec)
    for index in range(first, stop):
        start = chunk_start(index, samples, spec)
        end = start + valid_samples(index, samples, spec)
        while held_start + len(held) < end:
            held, held_start = _grow(held, held_start, next(blocks), start)
        chunk = held[start - held_start : end - held_start]
        if len(chunk) < spec.length:
            chunk = (fill_short if samples < spec.length else pad_chunk)(chunk, spec)
        yield index, chunk


def _grow(held: Samples, held_start: int, block: Samples, needed: int) -> tuple[Samples, int]:
    """Append a block and forget what lies before the first sample still needed."""
    gone = min(max(0, needed - held_start), len(held) + len(block))
    if gone >= len(held):
        return block[gone - len(held) :], held_start + gone
    return np.concatenate([held[gone:], block]), held_start + gone
