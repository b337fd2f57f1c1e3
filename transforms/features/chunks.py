"""Chunks: the positions of a recording's equally long chunks, and how they are cut.

Chunk ``i`` covers samples ``[i·hop, i·hop + length)`` of its recording (or of the
segment that the catalogue names), at the target sample rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from melmill.transforms.features.logarithm import ADDED

Samples = npt.NDArray[np.float32]
Tail = Literal["drop", "pad", "shift_back"]
Short = Literal["drop", "pad", "repeat"]
Long = Literal["cut", "first", "fail"]
Edges = Literal["pad", "neighbours"]


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """How a recording is cut into chunks.

    Attributes
    ----------
    length, hop
        Number of samples in a chunk, and from the start of a chunk to the start of the
        next. A hop smaller than the length makes chunks overlap; a larger hop leaves gaps.
    tail
        Policy for the samples after the last whole chunk: drop them, pad them to a whole
        chunk, or add a chunk that is shifted back so that it ends with the recording.
    short
        Policy for a recording shorter than one chunk: drop it, pad it, or repeat it until
        the chunk is full.
    pad_value
        Sample value of the padding.
    long
        Policy for a recording longer than one chunk: cut it into chunks, take its first chunk, or
        let it fail. With the last two, each recording or segment has one row per channel.
    edges
        What frames see beyond the edges of their chunk: padding, or the samples of the recording
        there. With ``neighbours`` a chunk has a frame for each hop, so that the features of
        chunks that follow one another are the spectrogram of the whole recording.
    """

    length: Annotated[int, Ge(1)]
    hop: Annotated[int, Ge(1)]
    tail: Tail = "drop"
    short: Short = "pad"
    pad_value: float = 0.0
    edges: Edges = field(default="pad", metadata=ADDED)
    long: Long = field(default="cut", metadata=ADDED)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Numbers of samples before and after a chunk."""

    before: int = 0
    after: int = 0

    def __add__(self, other: Surroundings) -> Surroundings:
        """Return the samples that two steps, one after the other, need."""
        return Surroundings(self.before + other.before, self.after + other.after)

    def around(self, start: int, valid: int, total: int, length: int) -> Surroundings:
        """Return how many of these samples a recording has around a chunk.

        Parameters
        ----------
        start, valid
            First sample of the chunk in the recording, and number of its real samples.
        total
            Length of the recording.
        length
            Length of a chunk. Nothing follows on a chunk that is padded.

        Examples
        --------
        >>> Surroundings(5, 5).around(3, 10, 15, 10), Surroundings(5, 5).around(10, 5, 15, 10)
        (Surroundings(before=3, after=2), Surroundings(before=5, after=0))
        """
        after = total - start - length if valid == length else 0
        return Surroundings(min(self.before, start), max(0, min(self.after, after)))


def resampled_length(frames: int, rate_hz: int | Fraction, target_rate_hz: int) -> int:
    """Return the number of samples after resampling, as ``librosa.resample`` counts them.

    >>> resampled_length(44_100, 44_100, 22_050)
    22050
    >>> resampled_length(3, 44_100, 22_050)
    2
    """
    return -(-frames * target_rate_hz // rate_hz)


def count_chunks(samples: int, spec: ChunkSpec) -> int:
    """Return the number of chunks in a recording of ``samples`` samples.

    >>> spec = ChunkSpec(length=10, hop=10)
    >>> [count_chunks(n, spec) for n in (0, 9, 10, 19, 20, 25)]
    [0, 1, 1, 1, 2, 2]
    >>> count_chunks(25, ChunkSpec(10, 10, tail="pad"))
    3
    >>> count_chunks(25, ChunkSpec(10, 5, tail="shift_back"))
    4
    >>> count_chunks(9, ChunkSpec(10, 10, short="drop"))
    0
    >>> count_chunks(25, ChunkSpec(10, 10, long="first"))
    1

    With a hop longer than a chunk, samples that lie only in the gap make no tail chunk:

    >>> [count_chunks(n, ChunkSpec(10, 15, tail="pad")) for n in (10, 15, 16)]
    [1, 1, 2]
    """
    if samples <= 0:
        return 0
    if samples < spec.length:
        return 0 if spec.short == "drop" else 1
    if spec.long != "cut":
        return 1
    whole = 1 + (samples - spec.length) // spec.hop
    if spec.tail == "drop":
        return whole
    return whole + _has_tail(samples, whole, spec)


def _has_tail(samples: int, whole: int, spec: ChunkSpec) -> bool:
    covered = (whole - 1) * spec.hop + spec.length
    return samples > max(covered, whole * spec.hop)


def chunk_start(index: int, samples: int, spec: ChunkSpec) -> int:
    """Return the first sample of chunk ``index`` in a recording of ``samples`` samples.

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
    """Return the number of real samples in chunk ``index``; the rest is padding or repetition.

    >>> spec = ChunkSpec(length=10, hop=10, tail="pad")
    >>> [valid_samples(i, 25, spec) for i in range(3)]
    [10, 10, 5]
    """
    return min(spec.length, samples - chunk_start(index, samples, spec))


def filled_samples(index: int, valid: int, spec: ChunkSpec) -> int:
    """Return the number of samples in chunk ``index`` that are not padding.

    ``valid`` is the number of real samples, see :func:`valid_samples`. Only the first chunk of a
    recording can be filled by repetition.

    >>> [filled_samples(0, 6, ChunkSpec(10, 10, short=short)) for short in ("pad", "repeat")]
    [6, 10]
    """
    return spec.length if index == 0 and spec.short == "repeat" else valid


def fill_short(chunk: Samples, spec: ChunkSpec) -> Samples:
    """Return the only chunk of a short recording, repeated or padded to its full length.

    Parameters
    ----------
    chunk : float32 [samples, channels]
        The real samples, at most ``spec.length`` of them.
    spec
        Specification whose ``short`` policy is applied. Use :func:`pad_chunk` for a tail:
        a tail is always padded.

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
    """Return a chunk padded to its full length with the pad value.

    >>> pad_chunk(np.ones((2, 1), np.float32), ChunkSpec(3, 3)).ravel().tolist()
    [1.0, 1.0, 0.0]
    """
    padded = np.full((spec.length, chunk.shape[1]), spec.pad_value, np.float32)
    padded[: len(chunk)] = chunk
    return padded


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a chunk in its recording.

    Attributes
    ----------
    index
        Number of the chunk.
    start, valid
        First sample of the chunk, and number of its real samples; the rest is padding or
        repetition.
    filled
        Number of samples that are not padding.
    around
        Numbers of samples of the recording before and after the chunk that its features need.
    """

    index: int
    start: int
    valid: int
    filled: int
    around: Surroundings = Surroundings()


def place_chunk(index: int, samples: int, spec: ChunkSpec, origin: int = 0) -> Place:
    """Return the place of a chunk in a recording, or in a segment that begins at `origin`.

    >>> place_chunk(2, 25, ChunkSpec(10, 10, tail="pad"))
    Place(index=2, start=20, valid=5, filled=5, around=Surroundings(before=0, after=0))
    """
    valid = valid_samples(index, samples, spec)
    start = origin + chunk_start(index, samples, spec)
    return Place(index, start, valid, filled_samples(index, valid, spec))


def cut_chunks(
    blocks: Iterator[Samples],
    places: Iterable[Place],
    spec: ChunkSpec,
    change: Callable[[Place, Samples], Samples] | None = None,
) -> Iterator[tuple[Place, Samples]]:
    """Yield the chunks of a stream; keep little more than one in memory.

    Parameters
    ----------
    blocks : float32 [any, channels]
        Consecutive samples. They begin with the first sample before the first chunk that is
        needed, and reach at least to the last one needed of the last chunk.
    places
        Places of the chunks, in order.
    spec
        How the recording is cut.
    change
        Function that changes the samples of a chunk, with those around it, before it is padded.

    Yields
    ------
    (Place, float32 [before + length + after, channels])
        The chunk's place, and its samples between those around it.

    Examples
    --------
    >>> stream = iter([np.arange(7, dtype=np.float32)[:, None]])
    >>> spec = ChunkSpec(4, 4, "pad")
    >>> places = [place_chunk(index, 7, spec) for index in range(2)]
    >>> [chunk.ravel().tolist() for _, chunk in cut_chunks(stream, places, spec)]
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 0.0]]
    """
    buffer, buffer_start = None, 0
    for place in places:
        needed_start = place.start - place.around.before
        end = place.start + place.valid + place.around.after
        if buffer is None:
            buffer, buffer_start = next(blocks), needed_start
        while buffer_start + len(buffer) < end:
            buffer, buffer_start = _append_block(buffer, buffer_start, next(blocks), needed_start)
        window = buffer[needed_start - buffer_start : end - buffer_start]
        if change is not None:
            window = change(place, window)
        if place.valid < spec.length:
            fill = fill_short if place.filled > place.valid else pad_chunk
            chunk = fill(window[place.around.before :], spec)
            window = np.concatenate([window[: place.around.before], chunk])
        yield place, window


def _append_block(
    buffer: Samples, buffer_start: int, block: Samples, needed_start: int
) -> tuple[Samples, int]:
    """Return the buffer and its start after adding a block and dropping unneeded samples."""
    dropped = min(max(0, needed_start - buffer_start), len(buffer) + len(block))
    if dropped >= len(buffer):
        return block[dropped - len(buffer) :], buffer_start + dropped
    return np.concatenate([buffer[dropped:], block]), buffer_start + dropped
