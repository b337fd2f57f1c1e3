"""Decodes a span: the chunks of a recording at each sample rate, with the samples around them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, tee

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.records import AudioInfo, ProbedRecording
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.channels import select_channels
from melmill.transforms.features.chunks import (
    Place,
    cut_chunks,
    place_chunk,
    resampled_length,
)
from melmill.transforms.features.resample import Conversion, resample_stream
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

#: A chunk's place, and its samples with those around it, float32 [samples, channels].
PlacedChunk = tuple[Place, Samples]

#: Function that changes the samples of a chunk and those around it, float32 [samples, channels].
Change = Callable[[Place, Samples], Samples]

_BLOCK_SAMPLES = 1 << 17
_MIN_BLOCK_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class Span:
    """A run of consecutive chunks of one recording: the unit of decoding.

    Attributes
    ----------
    probed
        Recording and its probed header.
    origin_sample, samples
        Start and length of the recording, or of the requested segment, in samples at the
        target rate. Those of a variant are counted as it is played.
    first_chunk, stop_chunk
        Chunk indices of this span, ``stop_chunk`` excluded.
    variant
        Number of the variant; 0 for the recording as it is.
    """

    probed: ProbedRecording
    origin_sample: int
    samples: int
    first_chunk: int
    stop_chunk: int
    # Not part of the repr, from which names of plans are made; see ``name_plan``.
    variant: int = field(default=0, repr=False)

    @property
    def chunks(self) -> int:
        """Number of chunks in the span."""
        return self.stop_chunk - self.first_chunk

    @property
    def is_first(self) -> bool:
        """Whether the recording is read from its start."""
        return self.first_chunk == 0 and self.origin_sample == 0


@dataclass(frozen=True, slots=True)
class Listener:
    """A reader of the decoded frames of a recording, beside its chunks.

    Attributes
    ----------
    start, stop
        Frames that are read, at the recording's own rate.
    add
        Function that is called with each piece of them, float32 [frames, channels].
    """

    start: int
    stop: int
    add: Callable[[Samples], None]


def read_chunks(
    span: Span,
    features: FeatureSpec,
    source: StoredObject,
    listeners: Sequence[Listener] = (),
    change_at: Callable[[FeatureSpec], Change | None] = lambda at_rate: None,
) -> Iterator[tuple[PlacedChunk, ...]]:
    """Yield the chunks of a span at each sample rate: decoded, mixed, resampled and cut.

    The frames that the listeners read come from the same decode. `change_at` returns what changes
    the chunks at a sample rate, before they are padded.

    Yields
    ------
    tuple of (Place, float32 [before + length + after, selected channels])
        For each of :attr:`FeatureSpec.by_rate`: the chunk's place, and its samples with those
        around it.
    """
    at_rates, speed = features.by_rate, features.speed_of(span.variant)
    ranges = [_range(span, features, at_rate) for at_rate in at_rates]
    with _open_streams(span.probed.audio, at_rates, source, ranges, listeners, speed) as streams:
        cut = [
            cut_chunks(
                stream,
                _places(span, features, at_rate),
                at_rate.chunk,
                change_at(at_rate),
            )
            for stream, at_rate in zip(streams, at_rates, strict=True)
        ]
        yield from zip(*cut, strict=True)
        # Read to the end: only then the reader can check where the recording ends.
        for stream in streams:
            deque(stream, maxlen=0)


def place_chunks(span: Span, features: FeatureSpec) -> Iterator[tuple[Place, ...]]:
    """Yield the places of each chunk of a span, for each of :attr:`FeatureSpec.by_rate`."""
    return zip(*(_places(span, features, at_rate) for at_rate in features.by_rate), strict=True)


def _range(span: Span, features: FeatureSpec, at_rate: FeatureSpec) -> tuple[int, int]:
    """Return the samples that the chunks of a span need at a sample rate."""
    (first,) = _places(replace(span, stop_chunk=span.first_chunk + 1), features, at_rate)
    (last,) = _places(replace(span, first_chunk=span.stop_chunk - 1), features, at_rate)
    return first.start - first.around.before, last.start + last.valid + last.around.after


def _places(span: Span, features: FeatureSpec, at_rate: FeatureSpec) -> Iterator[Place]:
    audio = span.probed.audio
    rate_hz = audio.sample_rate_hz * features.speed_of(span.variant)
    total = resampled_length(audio.frames, rate_hz, at_rate.sample_rate_hz)
    for index in range(span.first_chunk, span.stop_chunk):
        place = place_chunk(index, span.samples, features.chunk, span.origin_sample)
        yield place_at_rate(place, features, at_rate, total, span.variant)


def place_at_rate(
    place: Place, features: FeatureSpec, at_rate: FeatureSpec, total: int, variant: int = 0
) -> Place:
    """Return the place of a chunk at a sample rate: the samples of the same time.

    Parameters
    ----------
    place
        Place of the chunk at the rate of all rows.
    features, at_rate
        All settings, and those for the sample rate.
    total
        Length of the recording at the sample rate.
    variant
        Number of the variant, whose words may need samples around the chunk.

    Examples
    --------
    >>> from melmill.transforms.features.chunks import ChunkSpec
    >>> fast = FeatureSpec(8_000, chunk=ChunkSpec(10, 10))
    >>> place_at_rate(place_chunk(1, 20, fast.chunk), fast, fast.at_rate(4_000), 10)
    Place(index=1, start=5, valid=5, filled=5, around=Surroundings(before=0, after=0))
    """
    rate, base, length = at_rate.sample_rate_hz, features.sample_rate_hz, at_rate.chunk.length
    start, stop = place.start * rate // base, -(-(place.start + place.valid) * rate // base)
    valid = min(length, min(stop, total) - start)
    filled = length if place.filled > place.valid else valid
    around = at_rate.surroundings
    if variant:
        around += features.variants[variant - 1].surroundings(rate)
    around = around.around(start, valid, total, length)
    return Place(place.index, start, valid, filled, around)


def read_samples(
    audio: AudioInfo, features: FeatureSpec, source: StoredObject, start: int, stop: int
) -> Iterator[Samples]:
    """Yield the samples of a part of a recording: decoded, mixed and resampled.

    Parameters
    ----------
    audio
        Result of the recording's probe.
    features
        Target rate, channels and resampler.
    source
        Location of the recording.
    start, stop
        Range of samples at the target rate, ``stop`` excluded.

    Yields
    ------
    float32 [any, selected channels]
        Blocks of ``stop - start`` samples in total.
    """
    with _open_streams(audio, [features], source, [(start, stop)]) as (stream,):
        yield from stream


@contextmanager
def _open_streams(
    audio: AudioInfo,
    at_rates: Sequence[FeatureSpec],
    source: StoredObject,
    ranges: Sequence[tuple[int, int]],
    listeners: Sequence[Listener] = (),
    speed: Fraction = Fraction(1),
) -> Iterator[list[Iterator[Samples]]]:
    """Open a stream of samples for each sample rate; all come from one decode.

    A recording is faster if it is converted from a higher rate than its own.
    Read from the streams in turn: what one of them has read is kept for the others.
    """
    rate_hz = audio.sample_rate_hz * speed
    conversions = [
        Conversion(
            rate_hz.numerator, at_rate.sample_rate_hz * rate_hz.denominator, at_rate.resampler
        )
        for at_rate in at_rates
    ]
    rates = list(zip(conversions, ranges, strict=True))
    sources = [conversion.source_range(*span, audio.frames) for conversion, span in rates]
    first, last = min(start for start, _ in sources), max(stop for _, stop in sources)
    first = min([first, *(listener.start for listener in listeners)])
    last = max([last, *(listener.stop for listener in listeners)])
    with open_audio(source, audio, first, last) as reader:
        decoded = _heard(reader.blocks(first, last, block_frames(audio)), first, listeners)
        more = reader.blocks(last, audio.frames, _MIN_BLOCK_FRAMES)  # hardly ever needed
        mixed = (select_channels(block, at_rates[0].channels) for block in chain(decoded, more))
        copies = tee(mixed, len(rates)) if len(rates) > 1 else (mixed,)
        yield [
            resample_stream(_skip(copy, start - first), *span, conversion)
            for copy, (start, _), (conversion, span) in zip(copies, sources, rates, strict=True)
        ]
        if listeners:
            deque(decoded, maxlen=0)
        total = resampled_length(audio.frames, rate_hz, at_rates[0].sample_rate_hz)
        if total - ranges[0][1] < at_rates[0].chunk.hop:
            reader.finish()  # no other span reads the recording's end


def _heard(
    blocks: Iterator[Samples], position: int, listeners: Sequence[Listener]
) -> Iterator[Samples]:
    """Yield blocks of decoded frames, after the listeners have read them."""
    for block in blocks:
        for listener in listeners:
            start, stop = listener.start - position, listener.stop - position
            listener.add(block[max(0, start) : max(0, stop)])
        position += len(block)
        yield block


def _skip(blocks: Iterator[Samples], skipped: int) -> Iterator[Samples]:
    for block in blocks:
        if skipped < len(block):
            yield block[skipped:]
        skipped = max(0, skipped - len(block))


def block_frames(audio: AudioInfo) -> int:
    """Return the number of frames that are decoded in one step."""
    return max(_MIN_BLOCK_FRAMES, _BLOCK_SAMPLES // audio.channels)
