"""A picture of a part of a recording, or of a row of a dataset: its waveform and a feature.

The values of the feature are those of the pipeline: computed in the same way from a file, and as
they are stored from a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from melmill.pipelines.config import Config
from melmill.pipelines.explore.chunk_rows import Chunk, ChunkReader
from melmill.pipelines.explore.feature_plots import FeaturePlot, plot_of
from melmill.pipelines.models import pin_models
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.sound.pictures import PictureSpec, draw_picture
from melmill.transforms.core.errors import Cause, ConfigError, RecordingError, Stage
from melmill.transforms.core.feature_columns import Array, FeatureColumn
from melmill.transforms.core.records import AudioInfo, ProbedRecording, Recording
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.features.channels import check_channels
from melmill.transforms.features.chunks import count_chunks, place_chunk, resampled_length
from melmill.transforms.features.decoded_spans import Span, read_chunks
from melmill.transforms.features.spans import extract_chunks
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.index.tables import read_part
from melmill.transforms.patterns.recordings import RecordingIndex
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.objects import StoredObject

Floats = npt.NDArray[np.float32]

_COLUMNS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """A waveform.

    Attributes
    ----------
    minima, maxima : float32 [channels, columns]
        Smallest and largest sample of each column.
    start_second, stop_second
        Place in the recording.
    """

    minima: Floats
    maxima: Floats
    start_second: float
    stop_second: float


@dataclass(frozen=True, slots=True, eq=False)
class DrawnChunk:
    """A feature of a chunk.

    Attributes
    ----------
    values
        Values, with as many axes as the feature has.
    plot
        Axes and units.
    """

    values: Array
    plot: FeaturePlot


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """What a picture shows.

    Attributes
    ----------
    title
        Title.
    waveform
        Waveform; ``None`` if the recording is gone.
    chunks
        A feature of each chunk; none if there is no chunk, or no feature with a picture.
    notes
        What to know.
    """

    title: str
    waveform: Waveform | None
    chunks: tuple[DrawnChunk, ...] = ()
    notes: tuple[str, ...] = ()


def draw_file(
    source: StoredObject,
    recipe: Config,
    at_second: float = 0.0,
    seconds: float = 30.0,
    feature: str | None = None,
) -> Drawing:
    """Return the drawing of a part of a recording, from the chunk in which a second lies.

    Parameters
    ----------
    source
        Recording.
    recipe
        Settings of the features.
    at_second, seconds
        Part to draw; it is extended to whole chunks.
    feature
        Name of a feature; ``None`` for the recipe's first that has a picture.

    Raises
    ------
    ConfigError
        The recording is shorter, or the recipe has no such feature.
    RecordingError
        The recording cannot be read.
    """
    audio = probe_audio(source)
    require_within(audio, at_second)
    spec = pin_models(recipe, source.uri, trial=False).feature_spec()
    check_channels(audio.channels, spec.channels)
    span = _span(source, audio, spec, at_second, seconds)
    rows, whole = _rows(span, spec), audio.frames / audio.sample_rate_hz
    column, chosen = _choose(spec.columns, spec.by_column, feature)
    chunks: tuple[DrawnChunk, ...] = ()
    if rows and column is not None and chosen is not None:
        pairs = zip(_compute(source, span, spec, chosen), rows, strict=True)
        chunks = tuple(DrawnChunk(v, plot_of(column, chosen, spec, row)) for v, row in pairs)
    start = rows[0].start_seconds if rows else at_second
    stop = min(whole, rows[-1].stop_seconds if rows else at_second + seconds)
    title = f"{PurePosixPath(source.uri).name}, {start:.2f} to {stop:.2f} s of {whole:.2f} s"
    notes = () if rows else ("the recording is shorter than a chunk of the recipe",)
    return Drawing(title, _waveform(source, audio, start, stop), chunks, notes)


def draw_row(
    opened: OpenSnapshot,
    name: str,
    chunk_index: int = 0,
    channel: int | None = None,
    feature: str | None = None,
    source_options: StorageOptions = (),
) -> Drawing:
    """Return the drawing of a row of a dataset, with the stored values.

    Parameters
    ----------
    opened
        Snapshot.
    name
        Recording: its URI, the end of its URI, or its id.
    chunk_index
        Number of the chunk.
    channel
        Channel, if channels have rows of their own; ``None`` for the first.
    feature
        Name of a feature; ``None`` for the first that has a picture.
    source_options
        fsspec options for the recordings' own store.

    Raises
    ------
    ConfigError
        There is no such recording, chunk or feature.
    DatasetError
        A shard is missing or damaged.
    """
    recording = _recording(opened, name)
    reader = ChunkReader(opened.store)
    row = _choose_row(reader.chunks(recording), recording["uri"], chunk_index, channel)
    spec = opened.recipe.feature_spec()
    column, chosen = _choose(opened.schema.features, spec.by_column, feature)
    chunks: tuple[DrawnChunk, ...] = ()
    if column is not None:
        values = reader.feature(row, column.name)
        chunks = (DrawnChunk(values, plot_of(column, chosen, spec, row)),)
    title = f"{PurePosixPath(recording['uri']).name}, chunk {row.chunk_index}"
    if row.channel is not None:
        title += f", channel {row.channel}"
    try:
        waveform = _waveform_of_row(recording, row, source_options)
    except RecordingError as error:
        note = f"no waveform: {error.message}"
        return Drawing(title, None, chunks, (note,))
    return Drawing(title, waveform, chunks)


def require_within(audio: AudioInfo, at_second: float) -> None:
    """Raise ConfigError if a recording ends before a second."""
    whole = audio.frames / audio.sample_rate_hz
    if at_second >= whole:
        raise ConfigError(f"--at {at_second:g}: the recording has {whole:.2f} s")


def _span(
    source: StoredObject, audio: AudioInfo, spec: FeatureSpec, at_second: float, seconds: float
) -> Span:
    """Return the chunks of a part of a recording."""
    samples = resampled_length(audio.frames, audio.sample_rate_hz, spec.sample_rate_hz)
    chunks, hop = count_chunks(samples, spec.chunk), spec.chunk.hop / spec.sample_rate_hz
    first = min(int(at_second / hop), max(0, chunks - 1))
    stop = min(chunks, max(first + 1, -int(-(at_second + seconds) // hop)))
    probed = ProbedRecording(Recording("", source.uri, source.uri), audio)
    return Span(probed, 0, samples, first, stop)


def _rows(span: Span, spec: FeatureSpec) -> list[Chunk]:
    """Return the rows of a span, one for each chunk, without what only a shard says."""
    places = (
        place_chunk(k, span.samples, spec.chunk) for k in range(span.first_chunk, span.stop_chunk)
    )
    rate_hz = spec.sample_rate_hz
    return [Chunk("", 0, 0, p.index, p.start, p.valid, rate_hz, 0.0, 0.0) for p in places]


def _compute(source: StoredObject, span: Span, spec: FeatureSpec, feature: Feature) -> list[Array]:
    """Return a feature of the first channel of each chunk."""
    rate_hz = feature.sample_rate_hz or spec.sample_rate_hz
    only = replace(spec, features=(feature,))
    number = [at_rate.sample_rate_hz for at_rate in only.by_rate].index(rate_hz)
    values: list[Array] = []
    for placed in read_chunks(span, only, source):
        _, arrays = extract_chunks([placed[number]], only.by_rate[number])
        values.append(arrays[feature.name][0])
    return values


def _choose(
    columns: tuple[FeatureColumn, ...], features: Mapping[str, Feature], name: str | None
) -> tuple[FeatureColumn | None, Feature | None]:
    """Return a feature: that with the name, else the first with two axes; none if there is none."""
    known = {column.name: column for column in columns if not column.is_number}
    if name is not None and name not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"--feature {name!r}: there is no such feature with a picture: {listed}")
    with_two_axes = (column.name for column in known.values() if len(column.shape) > 1)
    chosen = name if name is not None else next(with_two_axes, None)
    return (None, None) if chosen is None else (known[chosen], features.get(chosen))


def _recording(opened: OpenSnapshot, name: str) -> dict[str, Any]:
    """Return the columns of a recording of the index."""
    index = opened.snapshot.index
    found = RecordingIndex(opened.store, index, opened.parts, None).find(name, "ROW")
    columns = ["recording_id", "uri", "split", "shards", "fingerprint", "size_bytes"]
    for part in range(opened.parts):
        table = read_part(opened.store, index, "recordings", part, columns)
        for row in table.filter(pc.equal(table["recording_id"], found.recording_id)).to_pylist():
            return dict(row)
    raise AssertionError(f"{found.recording_id} was in the index")


def _choose_row(rows: list[Chunk], uri: str, chunk_index: int, channel: int | None) -> Chunk:
    there = sorted({row.chunk_index for row in rows})
    own = [row for row in rows if row.chunk_index == chunk_index]
    if not own:
        raise ConfigError(f"--chunk {chunk_index}: {uri} has the chunks {there[0]} to {there[-1]}")
    if channel is None:
        return own[0]
    of_channel = next((row for row in own if row.channel == channel), None)
    if of_channel is None:
        listed = ", ".join(str(row.channel) for row in own if row.channel is not None)
        named = listed or "(none of their own)"
        raise ConfigError(f"--channel {channel}: the rows have the channels {named}")
    return of_channel


def _waveform_of_row(recording: Mapping[str, Any], row: Chunk, options: StorageOptions) -> Waveform:
    source = StoredObject(
        recording["uri"], recording["size_bytes"], options, recording["fingerprint"]
    )
    if not source.holds_version and source.stat()[1] != recording["fingerprint"]:
        message = "the file has changed since this version of the dataset"
        raise RecordingError(Stage.READ, Cause.CHANGED, message)
    audio = probe_audio(source)
    return _waveform(source, audio, row.start_seconds, row.stop_seconds)


def _waveform(
    source: StoredObject, audio: AudioInfo, start_second: float, stop_second: float
) -> Waveform:
    rate = audio.sample_rate_hz
    start = min(round(start_second * rate), audio.frames - 1)
    stop = max(start + 1, min(audio.frames, round(stop_second * rate)))
    spec = PictureSpec(start, stop, min(_COLUMNS, stop - start), None, has_loudness=False)
    with open_audio(source, audio, start, stop, must_be_finite=False) as reader:
        for drawn in draw_picture(reader, spec):
            picture = drawn
    return Waveform(picture.whole("minima"), picture.whole("maxima"), start / rate, stop / rate)
