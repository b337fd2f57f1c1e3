"""Chunks are measured: each like a recording of its own, from the frames that meters hear anyway.

The frames of a chunk are those of its real samples, at the recording's own rate. Blocks begin with
the chunk, so its readings depend on nothing else: not on other chunks, and not on spans.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.chunks import Place, place_chunk
from melmill.transforms.features.decoded_spans import Listener, Span, block_frames, place_at_rate
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.measures.blocks import Shape
from melmill.transforms.measures.measuring import RecordingMeter
from melmill.transforms.measures.meters import Reading
from melmill.transforms.measures.registry import meters_of

if TYPE_CHECKING:
    from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

#: First frame of a chunk, and the frame after its last.
Frames = tuple[int, int]

#: Largest number of chunks that may overlap: each has meters and a buffer of its own.
MAX_OVERLAPPING = 64


class ChunkMeters:
    """The meters of consecutive chunks of a recording.

    Memory holds the meters of chunks that overlap (at most :data:`MAX_OVERLAPPING` in a checked
    recipe), and two seconds of samples for each; the length of the chunks does not matter.

    Parameters
    ----------
    measures
        Names of the measures to read.
    shape
        Sample rate and number of channels.
    chunks
        Frames of each chunk, in order.

    Attributes
    ----------
    readings : list of float32 [measures]
        Readings of each finished chunk; see :func:`to_numbers`.
    """

    def __init__(self, measures: Sequence[str], shape: Shape, chunks: Iterable[Frames]) -> None:
        self.readings: list[Samples] = []
        self._measures, self._meters, self._shape = measures, meters_of(measures), shape
        self._waiting = deque(chunks)
        self._open: deque[tuple[Frames, RecordingMeter]] = deque()
        self._position = self._waiting[0][0]

    def add(self, piece: Samples) -> None:
        """Add the next decoded frames, float32 [frames, channels], from the first chunk on."""
        start, self._position = self._position, self._position + len(piece)
        while self._waiting and self._waiting[0][0] < self._position:
            frames = self._waiting.popleft()
            length = frames[1] - frames[0]
            meter = RecordingMeter(self._meters, self._shape, 0, length, length)
            self._open.append((frames, meter))
        for (first, stop), meter in self._open:
            meter.add(piece[max(0, first - start) : max(0, stop - start)])
        while self._open and self._open[0][0][1] <= self._position:
            _, meter = self._open.popleft()
            self.readings.append(to_numbers(meter.readings(), self._measures))

    def columns(self, features: FeatureSpec, rows: int) -> dict[str, Samples]:
        """Return the readings by column, float32 [rows]; all rows of a chunk have the same."""
        per_chunk = rows // len(self.readings)
        of_rows = np.repeat(np.array(self.readings, np.float32), per_chunk, axis=0)
        numbers = {name: number for number, name in enumerate(self._measures)}
        return {
            column: np.ascontiguousarray(of_rows[:, numbers[measure]])
            for feature, spec in features.measured.items()
            for column, measure in spec.columns(feature).items()
        }


def to_numbers(readings: dict[str, Reading], measures: Sequence[str]) -> Samples:
    """Return readings as float32 numbers: NaN where a measure is not defined, 1 for true.

    >>> to_numbers({"level.rms": None, "channels.dead": True}, ["channels.dead", "level.rms"])
    array([ 1., nan], dtype=float32)
    """
    values = [readings[name] for name in measures]
    return np.array([np.nan if value is None else value for value in values], np.float32)


def listen_to_chunks(span: Span, features: FeatureSpec) -> tuple[ChunkMeters, Listener] | None:
    """Return the meters of a span's chunks, and what they must hear; ``None`` without measures.

    Chunks of variants have no measures.
    """
    if span.variant or not features.measured:
        return None
    numbers = range(span.first_chunk, span.stop_chunk)
    origin = span.origin_sample
    places = (place_chunk(number, span.samples, features.chunk, origin) for number in numbers)
    return _listen(places, span.probed.audio, features)


def no_readings(features: FeatureSpec, rows: int) -> dict[str, Samples]:
    """Return the columns of measures for rows without any, float32 [rows]: all NaN."""
    columns = features.columns_of(features.measured)
    return {column: np.full(rows, np.nan, np.float32) for column in columns}


def _listen(
    places: Iterable[Place], audio: AudioInfo, features: FeatureSpec
) -> tuple[ChunkMeters, Listener]:
    at_own = features.at_rate(audio.sample_rate_hz)
    placed = (place_at_rate(place, features, at_own, audio.frames) for place in places)
    chunks = [(place.start, place.start + place.valid) for place in placed]
    measures = tuple(dict.fromkeys(chain(*(s.measures for s in features.measured.values()))))
    meters = ChunkMeters(measures, Shape(audio.sample_rate_hz, audio.channels), chunks)
    return meters, Listener(chunks[0][0], chunks[-1][1], meters.add)


def measure_chunks(
    source: StoredObject,
    audio: AudioInfo,
    features: FeatureSpec,
    places: Sequence[Place],
    rows: int,
) -> dict[str, Samples]:
    """Return the measures of chunks by column, float32 [rows], in a decode of its own.

    Parameters
    ----------
    source, audio
        Recording, and its header.
    features
        Settings, with measures.
    places
        Places of the chunks in the recording, in order and not empty.
    rows
        Number of rows of all chunks.

    Raises
    ------
    RecordingError
        The recording cannot be read or decoded.
    """
    meters, listener = _listen(places, audio, features)
    with open_audio(source, audio, listener.start, listener.stop) as reader:
        for piece in reader.blocks(listener.start, listener.stop, block_frames(audio)):
            listener.add(piece)
    return meters.columns(features, rows)
