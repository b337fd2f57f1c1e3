"""Sample-rate conversion by soxr, streamed, and exact wherever it starts.

A conversion by up:down (the rates' ratio in lowest terms) repeats itself every ``down``
input samples. A stream that starts at a multiple of ``down`` with enough input before the
first sample wanted is therefore in the same phase as the conversion of the whole recording.

That holds where soxr steps through a table with one filter for each of the ``up`` phases.
Where the table would be too large (44,100 to 44,099 Hz, say) soxr interpolates its
filters and adds up its position in rounded steps, which drift: after 25 minutes such a
stream was measured 6e-3 off one that starts later. There a span is converted from the
start of the recording, which costs decoding what lies before it and is exact everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Quality = Literal["soxr_hq", "soxr_vhq"]

#: Input samples on either side of a span, for a conversion that does not lower the rate.
#: Measured: with 1,024 (times the ratio, when lowering) the span equals the whole to 2.4e-7.
CONTEXT_SAMPLES = 2048

#: The most phases for which soxr keeps a table, counted after its halvings of the rate.
MAX_TABLE_PHASES = 2048


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Which source samples a span needs, and how its conversion relates to the whole's.

    Attributes
    ----------
    start, stop
        Source samples to decode.
    skip
        Converted samples to throw away before the first one wanted.
    """

    start: int
    stop: int
    skip: int


def source_range(
    first_sample: int, stop_sample: int, frames: int, rate_hz: int, target_rate_hz: int
) -> SourceRange:
    """Find the source samples that target samples ``[first_sample, stop_sample)`` need.

    >>> source_range(0, 10, 1_000_000, 44_100, 22_050)
    SourceRange(start=0, stop=4116, skip=0)
    >>> source_range(22_050, 44_100, 1_000_000, 44_100, 22_050)
    SourceRange(start=40004, stop=92296, skip=2048)

    Equal rates need no context:

    >>> source_range(100, 200, 1_000, 8_000, 8_000)
    SourceRange(start=100, stop=200, skip=0)
    """
    if rate_hz == target_rate_hz:
        return SourceRange(first_sample, min(stop_sample, frames), 0)
    up, down = _ratio(rate_hz, target_rate_hz)
    context = CONTEXT_SAMPLES * max(1, -(-down // up))
    periods = max(0, (first_sample * down // up - context) // down)
    if not starts_anywhere(rate_hz, target_rate_hz):
        periods = 0
    stop = min(frames, -(-stop_sample * down // up) + context)
    return SourceRange(periods * down, stop, first_sample - periods * up)


def starts_anywhere(rate_hz: int, target_rate_hz: int) -> bool:
    """Tell whether a conversion may start at any multiple of its period.

    >>> starts_anywhere(44_100, 22_050), starts_anywhere(192_000, 22_050)
    (True, True)
    >>> starts_anywhere(44_100, 44_099)
    False
    """
    up, down = _ratio(rate_hz, target_rate_hz)
    halvings = (down // up).bit_length() - 1 if down > up else 0
    return up << halvings <= MAX_TABLE_PHASES


def _ratio(rate_hz: int, target_rate_hz: int) -> tuple[int, int]:
    common = gcd(rate_hz, target_rate_hz)
    return target_rate_hz // common, rate_hz // common


def resample_stream(
    blocks: Iterator[Samples],
    source: SourceRange,
    wanted: int,
    rate_hz: int,
    target_rate_hz: int,
    quality: Quality,
) -> Iterator[Samples]:
    """Convert a span's source samples, block by block.

    Parameters
    ----------
    blocks : float32 [samples, channels]
        The source samples ``[source.start, source.stop)``.
    source
        From :func:`source_range`.
    wanted
        Target samples to yield in all. Where the recording ends before them, zeros follow,
        as ``librosa.resample`` fixes its length.
    rate_hz, target_rate_hz
        Sample rates of the recording and of the features.
    quality
        librosa's name of soxr's recipe.

    Yields
    ------
    float32 [samples, channels]
    """
    convert = _converter(rate_hz, target_rate_hz, quality)
    skip, channels = source.skip, 1
    for converted in convert(blocks):
        channels = converted.shape[1]
        block = converted[skip : skip + wanted]
        skip -= min(skip, len(converted))
        wanted -= len(block)
        if len(block):
            yield block
    if wanted:
        yield np.zeros((wanted, channels), np.float32)


def _converter(
    rate_hz: int, target_rate_hz: int, quality: Quality
) -> Callable[[Iterator[Samples]], Iterator[Samples]]:
    if rate_hz == target_rate_hz:
        return lambda blocks: blocks
    return lambda blocks: _soxr_stream(blocks, rate_hz, target_rate_hz, quality)


def _soxr_stream(
    blocks: Iterator[Samples], rate_hz: int, target_rate_hz: int, quality: Quality
) -> Iterator[Samples]:
    import soxr

    first = next(blocks, None)
    if first is None:
        return
    channels = first.shape[1]
    stream = soxr.ResampleStream(
        rate_hz, target_rate_hz, channels, dtype="float32", quality=quality
    )
    yield _columns(stream.resample_chunk(first), channels)
    for block in blocks:
        yield _columns(stream.resample_chunk(block), channels)
    yield _columns(stream.resample_chunk(first[:0], last=True), channels)


def _columns(converted: Samples, channels: int) -> Samples:
    return converted.reshape(-1, channels)
