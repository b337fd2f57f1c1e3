"""Spans become rows: decode, mix, resample, cut, and compute the features.

A span is a run of consecutive chunks of one recording. The rows do not depend on how the
recording was divided into spans.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from itertools import chain, islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, DatasetError, RecordingError, Stage
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.core.records import AudioInfo, ProbedRecording
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.channels import count_channels, select_channels
from melmill.transforms.features.chunks import (
    Place,
    chunk_start,
    cut_chunks,
    place_chunk,
    resampled_length,
    valid_samples,
)
from melmill.transforms.features.extractors import extract_features, load_models
from melmill.transforms.features.resample import Conversion, resample_stream
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

#: A chunk's place, and its samples with those around it, float32 [samples, channels].
PlacedChunk = tuple[Place, Samples]

_BLOCK_SAMPLES = 1 << 17
_MIN_BLOCK_FRAMES = 1024
_BATCH_SAMPLES = 1 << 18
#: Number of recordings that are fetched while the current one is decoded.
_FETCHED_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Span:
    """A run of consecutive chunks of one recording: the unit of decoding.

    Attributes
    ----------
    probed
        Recording and its probed header.
    origin_sample, samples
        Start and length of the recording, or of the requested segment, in samples at the
        target rate.
    first_chunk, stop_chunk
        Chunk indices of this span, ``stop_chunk`` excluded.
    """

    probed: ProbedRecording
    origin_sample: int
    samples: int
    first_chunk: int
    stop_chunk: int

    @property
    def chunks(self) -> int:
        """Number of chunks in the span."""
        return self.stop_chunk - self.first_chunk

    @property
    def is_first(self) -> bool:
        """Whether the recording is read from its start."""
        return self.first_chunk == 0 and self.origin_sample == 0


@dataclass(frozen=True, slots=True)
class SpanRows:
    """The rows of a span without their features; one array element per row.

    Attributes
    ----------
    chunk_index, channel, valid_samples : int32
        Chunk number, channel number, and number of real samples in the chunk.
    start_sample : int64
        First sample of the chunk, counted from the start of the recording, at the target rate.
    peak_dbfs, rms_dbfs : float32
        Levels of the chunk's samples at the target rate; −inf for digital silence.
    decode_seconds, features_seconds : float
        Time for reading, decoding and resampling, and time for computing the features.
    """

    chunk_index: npt.NDArray[np.int32]
    channel: npt.NDArray[np.int32]
    start_sample: npt.NDArray[np.int64]
    valid_samples: npt.NDArray[np.int32]
    peak_dbfs: npt.NDArray[np.float32]
    rms_dbfs: npt.NDArray[np.float32]
    decode_seconds: float = 0.0
    features_seconds: float = 0.0


def extract_span(
    span: Span,
    features: FeatureSpec,
    source: StoredObject,
    spool: Path,
    upcoming: Sequence[StoredObject] = (),
) -> SpanRows:
    """Return a span's rows, and write their features to the spool as raw numbers.

    Parameters
    ----------
    span
        Chunks of one recording.
    features
        Features to compute.
    source
        Location of the recording.
    spool
        File that is overwritten with the features, row by row; see :func:`row_type`.
    upcoming
        Recordings that will be read next from their start. Remote ones are fetched meanwhile.

    Returns
    -------
    SpanRows
        All columns except the features. Rows of one chunk are adjacent, channel by channel.

    Raises
    ------
    RecordingError
        The recording does not match its header, or changed since it was probed.
    DatasetError
        The spool cannot be written.
    ConfigError
        A model of the features cannot be used.
    """
    (rows,) = extract_spans([span], features, [source], spool, upcoming)
    return rows


def extract_spans(
    spans: Sequence[Span],
    features: FeatureSpec,
    sources: Sequence[StoredObject],
    spool: Path,
    upcoming: Sequence[StoredObject] = (),
) -> list[SpanRows]:
    """Return the rows of several spans, and write their features to the spool, span by span.

    A model's batch may hold chunks of several spans. For parameters and errors, see
    :func:`extract_span`: all spans fail together. The recordings have the same number of channels.
    """
    load_models(features, sources[0].uri, sources[0].storage_options)
    with _spool_errors(spool):
        file = spool.open("wb", buffering=0)  # unbuffered: an error is raised by its own write
    pairs = list(zip(spans, sources, strict=True))
    chunks = _read_spans(pairs, features, upcoming)
    with file:
        write = partial(_write_spool, file, spool)
        rows = _write_rows(spans, features, chunks, write)
    for span, source in pairs:
        _check_unchanged(span, source)
    return rows


def _read_spans(
    pairs: Sequence[tuple[Span, StoredObject]],
    features: FeatureSpec,
    upcoming: Sequence[StoredObject],
) -> Iterator[tuple[PlacedChunk, ...]]:
    for number, (span, source) in enumerate(pairs):
        following = pairs[number + 1 : number + 1 + _FETCHED_AHEAD]
        for next_source in [next_ for later, next_ in following if later.is_first]:
            next_source.prefetch()
        if number == len(pairs) - 1:
            for next_source in upcoming:
                next_source.prefetch()
        yield from read_chunks(span, features, source)


def read_chunks(
    span: Span, features: FeatureSpec, source: StoredObject
) -> Iterator[tuple[PlacedChunk, ...]]:
    """Yield the chunks of a span at each sample rate: decoded, mixed, resampled and cut.

    Yields
    ------
    tuple of (Place, float32 [before + length + after, selected channels])
        For each of :attr:`FeatureSpec.by_rate`: the chunk's place, and its samples with those
        around it.
    """
    at_rates = features.by_rate
    ranges = [_range(span, features, at_rate) for at_rate in at_rates]
    with _open_streams(span.probed.audio, at_rates, source, ranges) as streams:
        cut = [
            cut_chunks(stream, _places(span, features, at_rate), at_rate.chunk)
            for stream, at_rate in zip(streams, at_rates, strict=True)
        ]
        yield from zip(*cut, strict=True)
        # Read to the end: only then the reader can check where the recording ends.
        for stream in streams:
            deque(stream, maxlen=0)


def _range(span: Span, features: FeatureSpec, at_rate: FeatureSpec) -> tuple[int, int]:
    """Return the samples that the chunks of a span need at a sample rate."""
    (first,) = _places(replace(span, stop_chunk=span.first_chunk + 1), features, at_rate)
    (last,) = _places(replace(span, first_chunk=span.stop_chunk - 1), features, at_rate)
    return first.start - first.around.before, last.start + last.valid + last.around.after


def _places(span: Span, features: FeatureSpec, at_rate: FeatureSpec) -> Iterator[Place]:
    audio = span.probed.audio
    total = resampled_length(audio.frames, audio.sample_rate_hz, at_rate.sample_rate_hz)
    for index in range(span.first_chunk, span.stop_chunk):
        place = place_chunk(index, span.samples, features.chunk, span.origin_sample)
        yield place_at_rate(place, features, at_rate, total)


def place_at_rate(place: Place, features: FeatureSpec, at_rate: FeatureSpec, total: int) -> Place:
    """Return the place of a chunk at a sample rate: the samples of the same time.

    Parameters
    ----------
    place
        Place of the chunk at the rate of all rows.
    features, at_rate
        All settings, and those for the sample rate.
    total
        Length of the recording at the sample rate.

    Examples
    --------
    >>> fast = FeatureSpec(8_000, chunk=ChunkSpec(10, 10))
    >>> place_at_rate(place_chunk(1, 20, fast.chunk), fast, fast.at_rate(4_000), 10)
    Place(index=1, start=5, valid=5, filled=5, around=Surroundings(before=0, after=0))
    """
    rate, base, length = at_rate.sample_rate_hz, features.sample_rate_hz, at_rate.chunk.length
    start, stop = place.start * rate // base, -(-(place.start + place.valid) * rate // base)
    valid = min(length, min(stop, total) - start)
    filled = length if place.filled > place.valid else valid
    around = at_rate.surroundings.around(start, valid, total, length)
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
) -> Iterator[list[Iterator[Samples]]]:
    """Open a stream of samples for each sample rate; all come from one decode.

    Read from the streams in turn: what one of them has read is kept for the others.
    """
    conversions = [
        Conversion(audio.sample_rate_hz, at_rate.sample_rate_hz, at_rate.resampler)
        for at_rate in at_rates
    ]
    rates = list(zip(conversions, ranges, strict=True))
    sources = [conversion.source_range(*span, audio.frames) for conversion, span in rates]
    first, last = min(start for start, _ in sources), max(stop for _, stop in sources)
    with open_audio(source, audio, first, last) as reader:
        decoded = chain(
            reader.blocks(first, last, _block_frames(audio)),
            reader.blocks(last, audio.frames, _MIN_BLOCK_FRAMES),  # hardly ever needed
        )
        mixed = (select_channels(block, at_rates[0].channels) for block in decoded)
        copies = tee(mixed, len(rates)) if len(rates) > 1 else (mixed,)
        yield [
            resample_stream(_skip(copy, start - first), *span, conversion)
            for copy, (start, _), (conversion, span) in zip(copies, sources, rates, strict=True)
        ]
        total = resampled_length(audio.frames, audio.sample_rate_hz, at_rates[0].sample_rate_hz)
        if total - ranges[0][1] < at_rates[0].chunk.hop:
            reader.finish()  # no other span reads the recording's end


def _skip(blocks: Iterator[Samples], skipped: int) -> Iterator[Samples]:
    for block in blocks:
        if skipped < len(block):
            yield block[skipped:]
        skipped = max(0, skipped - len(block))


def _block_frames(audio: AudioInfo) -> int:
    return max(_MIN_BLOCK_FRAMES, _BLOCK_SAMPLES // audio.channels)


@contextmanager
def _spool_errors(spool: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot write working files in {spool.parent}: {error}") from error


def row_type(features: FeatureSpec) -> np.dtype[np.void]:
    """Return the type of a row's features in a spool: their arrays, one after the other."""
    return np.dtype([(column.name, column.dtype, column.shape) for column in features.columns])


def _write_spool(file: FileIO, spool: Path, rows: npt.NDArray[np.void]) -> None:
    remaining = rows.view(np.uint8).data
    with _spool_errors(spool):
        while len(remaining):
            remaining = remaining[file.write(remaining) :]


def _write_rows(
    spans: Sequence[Span],
    features: FeatureSpec,
    chunks: Iterator[tuple[PlacedChunk, ...]],
    write: Callable[[npt.NDArray[np.void]], None],
) -> list[SpanRows]:
    record_type, at_rates = row_type(features), features.by_rate
    channels = count_channels(spans[0].probed.audio.channels, features.channels)
    per_batch = max(1, _BATCH_SAMPLES // max(at_rate.chunk.length for at_rate in at_rates))
    # Whole batches of the models.
    per_batch = -(-per_batch // (per_model := features.batch_rows)) * per_model
    levels = []
    started, features_seconds = time.perf_counter(), 0.0
    while batch := list(islice(chunks, per_batch)):
        decoded = time.perf_counter()
        rates = zip(at_rates, zip(*batch, strict=True), strict=True)
        extracted = [extract_chunks(placed, at_rate) for at_rate, placed in rates]
        for samples, arrays in extracted:
            # An integer is finite, whatever it was made from.
            checked = samples, *arrays.values()
            _require_finite(checked, samples, batch[0][0][0].index, channels)
        features_by_name = {n: values for _, arrays in extracted for n, values in arrays.items()}
        write(_as_records(features_by_name, record_type))
        samples, _ = extracted[0]
        levels.append(measure_levels(samples))
        features_seconds += time.perf_counter() - decoded
    decode_seconds = time.perf_counter() - started - features_seconds
    seconds = np.array([decode_seconds, features_seconds]) / sum(span.chunks for span in spans)
    ends = np.cumsum([span.chunks * channels for span in spans])[:-1]
    parts = np.split(np.concatenate(levels, axis=1), ends, axis=1)
    return [
        span_rows(span, features, channels, *part, *(seconds * span.chunks).tolist())
        for span, part in zip(spans, parts, strict=True)
    ]


def extract_chunks(
    placed: Sequence[PlacedChunk], at_rate: FeatureSpec
) -> tuple[Samples, dict[str, Array]]:
    """Return chunks as rows, a row for each channel of each chunk, and their features.

    Parameters
    ----------
    placed
        Chunks at a sample rate.
    at_rate
        Settings for the sample rate; see :attr:`FeatureSpec.by_rate`.

    Returns
    -------
    float32 [rows, samples]
        Samples of the rows.
    dict
        Array [rows, ...] of each feature, by name.
    """
    length = at_rate.chunk.length
    windows = [(row, place.around.before) for place, chunk in placed for row in chunk.T]
    filled = [place.filled for place, chunk in placed for _ in chunk.T]
    # The order in memory is that of the chunks: sums of levels depend on it in their last bits.
    samples = np.concatenate([chunk[place.around.before :][:length].T for place, chunk in placed])
    with np.errstate(over="ignore", invalid="ignore"):
        return samples, extract_features(samples, filled, at_rate, windows)


def _as_records(
    arrays: Mapping[str, Array], record_type: np.dtype[np.void]
) -> npt.NDArray[np.void]:
    (first, *others) = arrays.values()
    if not others:
        return first.reshape(-1).view(record_type)
    records = np.empty(len(first), record_type)
    for name, values in arrays.items():
        records[name] = values
    return records


def _require_finite(
    arrays: Iterable[Array], samples: Samples, first_chunk: int, channels: int
) -> None:
    """Raise RecordingError if a feature is not finite: finite samples may be too large."""
    for values in arrays:
        if np.isfinite([values.min(), values.max()]).all():
            continue
        row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        message = (
            f"the features of chunk {first_chunk + row // channels} are not finite: "
            f"its largest sample is {np.abs(samples[row]).max():g}, where full scale is 1"
        )
        raise RecordingError(Stage.DECODE, Cause.NON_FINITE, message)


def span_rows(
    span: Span,
    features: FeatureSpec,
    channels: int,
    peak_dbfs: Samples,
    rms_dbfs: Samples,
    decode_seconds: float = 0.0,
    features_seconds: float = 0.0,
) -> SpanRows:
    """Return the rows of a span, from their levels and from the times that they took."""
    indices = range(span.first_chunk, span.stop_chunk)
    starts = [span.origin_sample + chunk_start(i, span.samples, features.chunk) for i in indices]
    valid = [valid_samples(i, span.samples, features.chunk) for i in indices]
    return SpanRows(
        chunk_index=np.repeat(np.array(indices, np.int32), channels),
        channel=np.tile(np.arange(channels, dtype=np.int32), len(indices)),
        start_sample=np.repeat(np.array(starts, np.int64), channels),
        valid_samples=np.repeat(np.array(valid, np.int32), channels),
        peak_dbfs=peak_dbfs,
        rms_dbfs=rms_dbfs,
        decode_seconds=decode_seconds,
        features_seconds=features_seconds,
    )


def measure_levels(samples: Samples) -> Samples:
    """Return the peak and the root mean square of each row of samples.

    Parameters
    ----------
    samples : float32 [rows, samples]

    Returns
    -------
    float32 [2, rows]
        Peak and RMS in dB relative to full scale (1.0); −inf for digital silence.

    Examples
    --------
    >>> measure_levels(np.array([[0.5, -1.0], [0.0, 0.0]], np.float32)).round(3).tolist()
    [[0.0, -inf], [-2.0409998893737793, -inf]]
    """
    peak = np.maximum(samples.max(axis=1), -samples.min(axis=1))
    rms = np.sqrt([np.dot(row, row) / len(row) for row in samples])
    with np.errstate(divide="ignore"):
        levels: Samples = (20 * np.log10(np.stack([peak, rms]))).astype(np.float32)
    return levels


def _check_unchanged(span: Span, source: StoredObject) -> None:
    if source.holds_version:
        return
    _, fingerprint = source.stat()
    if fingerprint != span.probed.recording.fingerprint:
        probed = span.probed.recording.fingerprint
        message = f"the fingerprint was {probed} when probed, it is now {fingerprint}"
        raise RecordingError(Stage.READ, Cause.CHANGED, message)
