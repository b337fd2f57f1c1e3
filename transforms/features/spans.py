"""Spans become rows: decode, mix, resample, cut, and compute the features.

A span is a run of consecutive chunks of one recording. The rows do not depend on how the
recording was divided into spans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, DatasetError, RecordingError, Stage
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.chunks import (
    chunk_start,
    valid_samples,
)
from melmill.transforms.features.decoded_spans import Listener, PlacedChunk, Span, read_chunks
from melmill.transforms.features.extractors import extract_features, load_models
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.variants import change_of
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

_BATCH_SAMPLES = 1 << 18
#: Number of recordings that are fetched while the current one is decoded.
FETCHED_AHEAD = 3


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
    readings : dict of float32
        Measures of the chunk, by the names of their columns; NaN where a measure is not defined.
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
    readings: Mapping[str, Samples] = field(default_factory=dict)


def extract_spans(
    spans: Sequence[Span],
    features: FeatureSpec,
    sources: Sequence[StoredObject],
    spool: Path,
    upcoming: Sequence[StoredObject] = (),
    catalogue: str = "",
    listeners: Sequence[Sequence[Listener]] = (),
) -> list[SpanRows]:
    """Return the rows of spans, and write their features to the spool as raw numbers.

    A model's batch may hold chunks of several spans. All spans fail together. Measures are not
    computed here: a listener reads them.

    Parameters
    ----------
    spans
        Chunks of recordings with the same number of channels.
    features
        Features to compute.
    sources
        Locations of the recordings.
    spool
        File that is overwritten with the features, row by row; see :func:`row_type`.
    upcoming
        Recordings that will be read next from their start. Remote ones are fetched meanwhile.
    catalogue
        URI of the catalogue; see :func:`load_models`.
    listeners
        Readers of the decoded frames of each span; none at all by default.

    Returns
    -------
    list of SpanRows
        All columns except the features. Rows of one chunk are adjacent, channel by channel.

    Raises
    ------
    RecordingError
        A recording does not match its header, or changed since it was probed.
    DatasetError
        The spool cannot be written.
    ConfigError
        A model of the features, or a sound of a variant, cannot be used.
    """
    load_models(features, catalogue, sources[0].storage_options)
    with _spool_errors(spool):
        file = spool.open("wb", buffering=0)  # unbuffered: an error is raised by its own write
    pairs = list(zip(spans, sources, strict=True))
    chunks = _read_spans(pairs, features, upcoming, listeners or [()] * len(spans), catalogue)
    with file:
        write = partial(_write_spool, file, spool)
        rows = _write_rows(spans, features, chunks, write)
    for span, source in pairs:
        check_unchanged(span, source)
    return rows


def _read_spans(
    pairs: Sequence[tuple[Span, StoredObject]],
    features: FeatureSpec,
    upcoming: Sequence[StoredObject],
    listeners: Sequence[Sequence[Listener]],
    catalogue: str,
) -> Iterator[tuple[PlacedChunk, ...]]:
    for number, (span, source) in enumerate(pairs):
        following = pairs[number + 1 : number + 1 + FETCHED_AHEAD]
        for next_source in [next_ for later, next_ in following if later.is_first]:
            next_source.prefetch()
        if number == len(pairs) - 1:
            for next_source in upcoming:
                next_source.prefetch()
        change_at = partial(change_of, span, features, catalogue, source.storage_options)
        yield from read_chunks(span, features, source, listeners[number], change_at)


@contextmanager
def _spool_errors(spool: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot write working files in {spool.parent}: {error}") from error


def row_type(features: FeatureSpec) -> np.dtype[np.void]:
    """Return the type of a row's features in a spool: their arrays, one after the other.

    Measures are not in the spool; see :attr:`SpanRows.readings`.
    """
    arrays = (column for column in features.columns if not column.is_number)
    return np.dtype([(column.name, column.dtype, column.shape) for column in arrays])


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
        if features_by_name:
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


def check_unchanged(span: Span, source: StoredObject) -> None:
    """Raise RecordingError if a recording changed since it was probed."""
    if source.holds_version:
        return
    _, fingerprint = source.stat()
    if fingerprint != span.probed.recording.fingerprint:
        probed = span.probed.recording.fingerprint
        message = f"the fingerprint was {probed} when probed, it is now {fingerprint}"
        raise RecordingError(Stage.READ, Cause.CHANGED, message)
