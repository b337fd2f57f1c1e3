"""Extracts spans, and measures them and their chunks, in one decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from melmill.transforms.core.records import MeasuredPart
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.chunks import chunk_start, count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Listener, Span, block_frames
from melmill.transforms.features.spans import SpanRows, check_unchanged, extract_spans
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.measures.blocks import Shape, first_frame, last_frame
from melmill.transforms.measures.chunk_meters import listen_to_chunks, no_readings
from melmill.transforms.measures.measuring import RecordingMeter
from melmill.transforms.measures.states import readings_json, to_json
from melmill.transforms.store.objects import StoredObject


def extract_and_measure(
    spans: Sequence[Span],
    features: FeatureSpec,
    sources: Sequence[StoredObject],
    spool: Path,
    upcoming: Sequence[StoredObject],
    catalogue: str,
    meters: Sequence[str],
) -> tuple[list[SpanRows], list[MeasuredPart]]:
    """Return the rows of spans, and what was measured of each span's part of its recording.

    The measures of chunks, which the features name, are in the rows.

    For parameters and errors, see :func:`~melmill.transforms.features.spans.extract_spans`.

    Parameters
    ----------
    meters
        Meters to use for the recordings.

    Returns
    -------
    list of SpanRows
        All columns except the features that are in the spool.
    list of MeasuredPart
        What was measured, of the spans where anything is to be measured.
    """
    # A recording whose readings the snapshot has is not measured again.
    wanted = [() if span.probed.recording.measures else meters for span in spans]
    heard = [listen(span, features, names) for span, names in zip(spans, wanted, strict=True)]
    of_chunks = [listen_to_chunks(span, features) for span in spans]
    pairs = zip(heard, of_chunks, strict=True)
    listeners = [[pair[1] for pair in of_span if pair is not None] for of_span in pairs]
    rows = extract_spans(spans, features, sources, spool, upcoming, catalogue, listeners)
    rows = [
        replace(
            own, readings=(pair[0].columns if pair else no_readings)(features, len(own.channel))
        )
        for own, pair in zip(rows, of_chunks, strict=True)
    ]
    return rows, [_part(span, pair[0]) for span, pair in zip(spans, heard, strict=True) if pair]


def _part(span: Span, meter: RecordingMeter) -> MeasuredPart:
    recording_id = span.probed.recording.recording_id
    where = meter.start, meter.stop, meter.total
    part = MeasuredPart(recording_id, *where, "")
    # States may be a hundred times as large as readings: few recordings need them.
    text = readings_json(meter.readings()) if part.is_whole else to_json(meter.meters)
    return replace(part, text=text)


def measure_spans(
    spans: Sequence[Span],
    sources: Sequence[StoredObject],
    features: FeatureSpec,
    meters: Sequence[str],
    upcoming: Sequence[StoredObject] = (),
) -> list[MeasuredPart]:
    """Return what is measured of each span's part of its recording, without features.

    For parameters and errors, see :func:`extract_and_measure`.
    """
    for next_source in upcoming:
        next_source.prefetch()
    parts = []
    for span, source in zip(spans, sources, strict=True):
        if (pair := listen(span, features, meters)) is not None:
            meter, listener = pair
            audio = span.probed.audio
            with open_audio(source, audio, listener.start, listener.stop) as reader:
                for piece in reader.blocks(listener.start, listener.stop, block_frames(audio)):
                    listener.add(piece)
                if listener.stop == audio.frames:
                    reader.finish()
            check_unchanged(span, source)
            parts.append(_part(span, meter))
    return parts


def listen(
    span: Span, features: FeatureSpec, meters: Sequence[str]
) -> tuple[RecordingMeter, Listener] | None:
    """Return the meter of a span's part of its recording, and what it must hear.

    The spans of a recording divide all of it: the first span has the samples before its chunks, and
    the last has those after. A segment is measured like a recording of its own. The result is
    ``None`` if the part is empty, if no meter is wanted, or if the span is one of a variant.

    Parameters
    ----------
    span
        Chunks of one recording.
    features
        Sample rate and chunks.
    meters
        Meters to use.
    """
    if span.variant or not meters:
        return None
    audio = span.probed.audio
    shape = Shape(audio.sample_rate_hz, audio.channels)
    offset, total = _measured_frames(span, features)
    start, stop = (
        _border(chunk, span, features, shape, total)
        for chunk in (span.first_chunk, span.stop_chunk)
    )
    if start >= stop:
        return None
    meter = RecordingMeter(meters, shape, start, stop, total)
    heard = first_frame(start, shape), last_frame(stop, shape, total)
    return meter, Listener(offset + heard[0], offset + heard[1], meter.add)


def _measured_frames(span: Span, features: FeatureSpec) -> tuple[int, int]:
    """Return the first frame of the recording or segment, and its number of frames."""
    audio, rate_hz = span.probed.audio, features.sample_rate_hz
    stop_sample = span.origin_sample + span.samples
    start = span.origin_sample * audio.sample_rate_hz // rate_hz
    if stop_sample >= resampled_length(audio.frames, audio.sample_rate_hz, rate_hz):
        return start, audio.frames - start
    return start, stop_sample * audio.sample_rate_hz // rate_hz - start


def _border(chunk: int, span: Span, features: FeatureSpec, shape: Shape, total: int) -> int:
    """Return the frame at which the measured part before a chunk ends, counted from the segment."""
    if chunk == 0:
        return 0
    if chunk == count_chunks(span.samples, features.chunk):
        return total
    sample = chunk_start(chunk, span.samples, features.chunk)
    frame = sample * shape.rate_hz // features.sample_rate_hz
    return min(total, frame // shape.block_frames * shape.block_frames)
