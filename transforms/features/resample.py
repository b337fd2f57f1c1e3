"""Streamed sample-rate conversion with soxr; the result is the same wherever it starts.

Samples are converted in blocks. The block length depends only on the two rates, and the first
block begins at the recording's first sample. Each block is a separate conversion by a reset
soxr. Its input begins before the block, as far as the filter reaches, and ends after the
block, where soxr needs no more. To get any sample of a block, the block is converted from its
beginning. So every span gets the same bits.

A conversion by up:down (the rates' ratio in lowest terms) repeats itself every ``down``
source samples and every ``up`` converted samples. A block that begins at a multiple of ``up``
is therefore in the same phase as the conversion of the whole recording. It equals that
conversion up to float32 rounding, if soxr keeps its position (see :func:`drifts`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import gcd
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Quality = Literal["soxr_hq", "soxr_vhq"]

#: Samples in a block at the higher of the two rates, rounded down to whole periods (at least
#: one). A reset and the samples around a block cost about 50 µs per block. With this length, that
#: is less than 1 % of an extraction (``benchmarks/stages.py --stages resample``). A span that
#: begins within a block also converts the part of the block before it (six seconds on average, at
#: 44.1 kHz) and discards the result.
BLOCK_SAMPLES = 1 << 19

#: Source samples read before a block if the conversion does not lower the rate; otherwise
#: multiplied by the ratio. Measured: with 256 (times the ratio) a block already equals the
#: conversion of the whole recording up to float32 rounding.
CONTEXT_SAMPLES = 1024

#: Source samples that soxr reads ahead before it returns the last sample needed, scaled like
#: CONTEXT_SAMPLES. Measured: at most 1,746. If soxr needs more, it gets more.
DELAY_SAMPLES = 2048

#: Source samples passed to soxr in one call. soxr allocates its buffers again for each block.
#: With larger calls the operating system provides the memory each time; measured, this costs
#: 200 µs per block.
_FEED_SAMPLES = 1 << 15

#: Maximum number of phases for which soxr keeps a table, after soxr has halved the rate.
_MAX_TABLE_PHASES = 2048


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion from one sample rate to another.

    Attributes
    ----------
    rate_hz, target_rate_hz
        Sample rates of the recording and of the features.
    quality
        soxr's quality setting, by librosa's name.
    """

    rate_hz: int
    target_rate_hz: int
    quality: Quality = "soxr_hq"

    @property
    def period(self) -> tuple[int, int]:
        """Number of converted and of source samples after which the conversion repeats itself.

        >>> Conversion(44_100, 16_000).period
        (160, 441)
        """
        common = gcd(self.rate_hz, self.target_rate_hz)
        return self.target_rate_hz // common, self.rate_hz // common

    @property
    def block_samples(self) -> int:
        """Number of converted samples in a block.

        >>> [Conversion(rate, 22_050).block_samples for rate in (44_100, 22_050, 192_000)]
        [262144, 524288, 60123]
        """
        return max(1, BLOCK_SAMPLES // max(self.period)) * self.period[0]

    def block_source(self, block_start: int) -> int:
        """Return the first source sample needed for the block that begins at `block_start`.

        >>> [Conversion(44_100, 22_050).block_source(start) for start in (0, 262_144)]
        [0, 522240]
        """
        up, down = self.period
        periods = -(-self._scaled(CONTEXT_SAMPLES) // down)
        return max(0, block_start // up - periods) * down

    def source_range(self, first_sample: int, stop_sample: int, frames: int) -> tuple[int, int]:
        """Return the source samples needed for converted samples ``[first_sample, stop_sample)``.

        Parameters
        ----------
        first_sample, stop_sample
            Range of converted samples.
        frames
            Length of the recording, at its own rate.

        Returns
        -------
        int
            First source sample needed, for the block that contains ``first_sample``.
        int
            End of the source samples needed, with the usual delay of soxr; at most the end of
            the recording.

        Examples
        --------
        >>> Conversion(44_100, 22_050).source_range(300_000, 310_000, 1_000_000)
        (522240, 624096)
        >>> Conversion(8_000, 8_000).source_range(100, 200, 1_000)
        (100, 200)
        """
        if self.rate_hz == self.target_rate_hz:
            return first_sample, min(stop_sample, frames)
        start = self.block_source(first_sample - first_sample % self.block_samples)
        return start, min(frames, self.likely_stop(stop_sample))

    def likely_stop(self, stop_sample: int) -> int:
        """Return the end of the source samples needed for `stop_sample` converted samples."""
        up, down = self.period
        return -(-stop_sample * down // up) + self._scaled(DELAY_SAMPLES)

    def _scaled(self, source_samples: int) -> int:
        up, down = self.period
        return source_samples * max(1, -(-down // up))


def drifts(rate_hz: int, target_rate_hz: int) -> bool:
    """Return whether soxr's position drifts, so that a long conversion differs from our blocks.

    soxr steps through a table with one filter for each of the ``up`` phases. If the table
    would be too large (for example from 44,100 to 44,099 Hz), soxr interpolates its filters and
    adds up its position in rounded steps. Measured: after 25 minutes, the conversion of a whole
    recording differed by 6e-3 from a conversion that started later. In our blocks the drift
    starts at zero with each block.

    >>> drifts(44_100, 22_050), drifts(192_000, 22_050), drifts(44_100, 44_099)
    (False, False, True)
    """
    up, down = Conversion(rate_hz, target_rate_hz).period
    halvings = (down // up).bit_length() - 1 if down > up else 0
    return up << halvings > _MAX_TABLE_PHASES


def resample_stream(
    pieces: Iterator[Samples], first_sample: int, stop_sample: int, conversion: Conversion
) -> Iterator[Samples]:
    """Yield the converted samples of a span, piece by piece.

    Parameters
    ----------
    pieces : float32 [samples, channels]
        Source samples from the start of :meth:`Conversion.source_range` to the end of the
        recording. Samples after that range are read only if soxr needs them.
    first_sample, stop_sample
        Range of converted samples to yield. If the recording ends before ``stop_sample``,
        zeros follow, as in ``librosa.resample``.
    conversion
        Sample rates and quality.

    Yields
    ------
    float32 [samples, channels]
    """
    missing, channels = stop_sample - first_sample, 1
    for converted in _convert(pieces, first_sample, stop_sample, conversion):
        channels = converted.shape[1]
        missing -= len(converted)
        if len(converted):
            yield converted
    if missing:
        yield np.zeros((missing, channels), np.float32)


def _convert(
    pieces: Iterator[Samples], first_sample: int, stop_sample: int, conversion: Conversion
) -> Iterator[Samples]:
    if conversion.rate_hz == conversion.target_rate_hz:
        yield from _cut(pieces, 0, stop_sample - first_sample)
        return
    length, (up, down) = conversion.block_samples, conversion.period
    first_start = first_sample - first_sample % length
    source, soxr = _Source(pieces, conversion.block_source(first_start)), _Soxr(conversion)
    for block_start in range(first_start, stop_sample, length):
        block_stop = block_start + length
        first, stop = max(first_sample, block_start), min(stop_sample, block_stop)
        start, likely_stop = conversion.block_source(block_start), conversion.likely_stop(stop)
        read = source.read(start, likely_stop, conversion.block_source(block_stop))
        yield from _cut(soxr.convert(read), first - start // down * up, stop - first)


def _cut(blocks: Iterator[Samples], skip: int, count: int) -> Iterator[Samples]:
    """Yield `count` samples after the first `skip`; read no more blocks than needed."""
    while count and (block := next(blocks, None)) is not None:
        cut = block[skip : skip + count]
        skip -= min(skip, len(block))
        count -= len(cut)
        yield cut


class _Source:
    """Source samples for overlapping blocks; each sample is decoded once."""

    def __init__(self, pieces: Iterator[Samples], start: int) -> None:
        self._pieces = pieces
        self._buffer: deque[Samples] = deque()
        self._buffer_start = start

    def read(self, start: int, likely_stop: int, next_start: int) -> Iterator[Samples]:
        """Yield the samples from `start` on, and keep the samples from `next_start` on.

        A piece is split at `likely_stop`, because samples after it are probably not needed.
        """
        self._drop_before(start)
        position = self._buffer_start
        for piece in chain(tuple(self._buffer), self._decode(next_start)):
            border = min(len(piece), max(0, likely_stop - position))
            for first, stop in ((0, border), (border, len(piece))):
                for at in range(first, stop, _FEED_SAMPLES):
                    yield piece[at : min(stop, at + _FEED_SAMPLES)]
            position += len(piece)

    def _decode(self, next_start: int) -> Iterator[Samples]:
        for piece in self._pieces:
            self._buffer.append(piece)
            self._drop_before(next_start)
            yield piece

    def _drop_before(self, start: int) -> None:
        while self._buffer and self._buffer_start < start:
            piece = self._buffer.popleft()
            dropped = min(len(piece), start - self._buffer_start)
            self._buffer_start += dropped
            if dropped < len(piece):
                self._buffer.appendleft(piece[dropped:])


class _Soxr:
    """A soxr stream that is created once and reset for each block."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._stream: Any = None

    def convert(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        """Yield the converted samples of one block, as if silence came before it.

        A yielded sample does not depend on pieces that were not read yet.
        """
        last = None
        for piece in pieces:
            if last is None:
                self._reset(piece.shape[1])
            last = piece[:0]
            yield self._stream.resample_chunk(piece).reshape(-1, piece.shape[1])
        if last is not None:
            yield self._stream.resample_chunk(last, last=True).reshape(-1, last.shape[1])

    def _reset(self, channels: int) -> None:
        if self._stream is not None:
            self._stream.clear()  # equal to a new stream, but faster
            return
        import soxr

        rates = self._conversion.rate_hz, self._conversion.target_rate_hz
        quality = self._conversion.quality
        self._stream = soxr.ResampleStream(*rates, channels, dtype="float32", quality=quality)
