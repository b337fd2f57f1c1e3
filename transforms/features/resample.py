"""Sample-rate conversion by soxr, streamed, and the same bits wherever it starts.

Converted samples are made in blocks of a length that the two rates alone decide, which
begin at the recording's first sample. Each block is a conversion of its own, by a soxr that
has seen nothing before it: from a source sample before the block (as far before it as the
filter reaches) to as many behind it as soxr asks for. Whoever needs a sample of a block
converts that block from its beginning, and so gets the same bits as everybody else.

A conversion by up:down (the rates' ratio in lowest terms) repeats itself every ``down``
source samples and ``up`` converted ones. A block that begins at a multiple of ``up`` is
therefore in the same phase as the conversion of the whole recording, and equals it to float32
rounding, where soxr keeps its position (see :func:`drifts`).
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

#: Samples of a block, at the higher of the two rates: rounded down to whole periods, of which
#: there is at least one. To begin anew costs about 100 µs a block; with this length all that blocks
#: cost is 0.7 % of an extraction from FLAC. A span that begins within a block converts what lies
#: before it in the block (six seconds on average, of 44.1 kHz) for nothing.
BLOCK_SAMPLES = 1 << 19

#: Source samples before a block, for a conversion that does not lower the rate. Measured: with
#: 256 (times the ratio, when lowering) a block equals the whole to float32 rounding.
CONTEXT_SAMPLES = 1024

#: Source samples behind those wanted that soxr reads before it gives the last of these, counted
#: as above. Measured: 1,746 at the most. Where soxr needs more, it gets more.
DELAY_SAMPLES = 2048

#: Source samples that soxr is given at once. Its buffers begin anew with each block: with more,
#: they come from the operating system each time, which was measured to cost 200 µs a block.
_FEED_SAMPLES = 1 << 15

#: The most phases for which soxr keeps a table, counted after its halvings of the rate.
_MAX_TABLE_PHASES = 2048


@dataclass(frozen=True, slots=True)
class Conversion:
    """From one sample rate to another.

    Attributes
    ----------
    rate_hz, target_rate_hz
        Sample rates of the recording and of the features.
    quality
        librosa's name of soxr's recipe.
    """

    rate_hz: int
    target_rate_hz: int
    quality: Quality = "soxr_hq"

    @property
    def period(self) -> tuple[int, int]:
        """Converted and source samples after which the conversion repeats itself.

        >>> Conversion(44_100, 16_000).period
        (160, 441)
        """
        common = gcd(self.rate_hz, self.target_rate_hz)
        return self.target_rate_hz // common, self.rate_hz // common

    @property
    def block_samples(self) -> int:
        """Converted samples of a block.

        >>> [Conversion(rate, 22_050).block_samples for rate in (44_100, 22_050, 192_000)]
        [262144, 524288, 60123]
        """
        return max(1, BLOCK_SAMPLES // max(self.period)) * self.period[0]

    def block_source(self, block_start: int) -> int:
        """First source sample that the block which begins at `block_start` is made from.

        >>> [Conversion(44_100, 22_050).block_source(start) for start in (0, 262_144)]
        [0, 522240]
        """
        up, down = self.period
        periods = -(-self._scaled(CONTEXT_SAMPLES) // down)
        return max(0, block_start // up - periods) * down

    def source_range(self, first_sample: int, stop_sample: int, frames: int) -> tuple[int, int]:
        """Find the source samples that converted samples ``[first_sample, stop_sample)`` need.

        Parameters
        ----------
        first_sample, stop_sample
            Converted samples.
        frames
            Length of the recording, at its own rate.

        Returns
        -------
        int
            The first source sample that is needed: of the block that holds ``first_sample``.
        int
            The end of those that are needed, as far as soxr's delay is known; the recording's
            end at the most.

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
        """End of the source samples that soxr reads before it has given `stop_sample` samples."""
        up, down = self.period
        return -(-stop_sample * down // up) + self._scaled(DELAY_SAMPLES)

    def _scaled(self, source_samples: int) -> int:
        up, down = self.period
        return source_samples * max(1, -(-down // up))


def drifts(rate_hz: int, target_rate_hz: int) -> bool:
    """Tell whether soxr's position drifts, and a long conversion differs from our blocks.

    soxr steps through a table with one filter for each of the ``up`` phases. Where the table
    would be too large (44,100 to 44,099 Hz, say) soxr interpolates its filters and adds up
    its position in rounded steps. After 25 minutes the conversion of a whole recording
    was measured 6e-3 off one that starts later. In our blocks the drift never grows beyond what
    one block gathers.

    >>> drifts(44_100, 22_050), drifts(192_000, 22_050), drifts(44_100, 44_099)
    (False, False, True)
    """
    up, down = Conversion(rate_hz, target_rate_hz).period
    halvings = (down // up).bit_length() - 1 if down > up else 0
    return up << halvings > _MAX_TABLE_PHASES


def resample_stream(
    pieces: Iterator[Samples], first_sample: int, stop_sample: int, conversion: Conversion
) -> Iterator[Samples]:
    """Convert a span's source samples, piece by piece.

    Parameters
    ----------
    pieces : float32 [samples, channels]
        The source samples from :meth:`Conversion.source_range`'s first one up to the end of
        the recording. Those behind its range are taken only where soxr needs them.
    first_sample, stop_sample
        Converted samples to yield. Where the recording ends before them, zeros follow, as
        ``librosa.resample`` fixes its length.
    conversion
        The rates.

    Yields
    ------
    float32 [samples, channels]
    """
    wanted, channels = stop_sample - first_sample, 1
    for converted in _convert(pieces, first_sample, stop_sample, conversion):
        channels = converted.shape[1]
        wanted -= len(converted)
        if len(converted):
            yield converted
    if wanted:
        yield np.zeros((wanted, channels), np.float32)


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


def _cut(blocks: Iterator[Samples], skip: int, wanted: int) -> Iterator[Samples]:
    """Yield `wanted` samples behind the first `skip`, and ask for no more than they take."""
    while wanted and (block := next(blocks, None)) is not None:
        cut = block[skip : skip + wanted]
        skip -= min(skip, len(block))
        wanted -= len(cut)
        yield cut


class _Source:
    """Source samples of blocks that overlap, each decoded once."""

    def __init__(self, pieces: Iterator[Samples], start: int) -> None:
        self._pieces = pieces
        self._kept: deque[Samples] = deque()
        self._start = start  # of the samples that are kept

    def read(self, start: int, likely_stop: int, next_start: int) -> Iterator[Samples]:
        """Yield the samples from `start` on, and keep those from `next_start` on.

        A piece ends at `likely_stop`: what lies behind it need not be converted with it.
        """
        self._forget(start)
        position = self._start
        for piece in chain(tuple(self._kept), self._decode(next_start)):
            border = min(len(piece), max(0, likely_stop - position))
            for first, stop in ((0, border), (border, len(piece))):
                for at in range(first, stop, _FEED_SAMPLES):
                    yield piece[at : min(stop, at + _FEED_SAMPLES)]
            position += len(piece)

    def _decode(self, next_start: int) -> Iterator[Samples]:
        for piece in self._pieces:
            self._kept.append(piece)
            self._forget(next_start)
            yield piece

    def _forget(self, start: int) -> None:
        while self._kept and self._start < start:
            piece = self._kept.popleft()
            gone = min(len(piece), start - self._start)
            self._start += gone
            if gone < len(piece):
                self._kept.appendleft(piece[gone:])


class _Soxr:
    """A converter that is made once, and begins anew with each block."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._stream: Any = None

    def convert(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        """Convert what follows silence. Samples given do not depend on pieces not yet taken."""
        last = None
        for piece in pieces:
            if last is None:
                self._begin(piece.shape[1])
            last = piece[:0]
            yield self._stream.resample_chunk(piece).reshape(-1, piece.shape[1])
        if last is not None:
            yield self._stream.resample_chunk(last, last=True).reshape(-1, last.shape[1])

    def _begin(self, channels: int) -> None:
        if self._stream is not None:
            self._stream.clear()  # as good as new, in less time
            return
        import soxr

        rates = self._conversion.rate_hz, self._conversion.target_rate_hz
        quality = self._conversion.quality
        self._stream = soxr.ResampleStream(*rates, channels, dtype="float32", quality=quality)
