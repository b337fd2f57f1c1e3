"""The reference for the measures of chunks: each chunk is measured alone, in one piece.

Like :mod:`~melmill.pipelines.snapshots.verify_reference`, the reference decodes the whole
recording from its start. The meters are melmill's own. They must give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.chunks import Place
from melmill.transforms.features.decoded_spans import place_at_rate
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.measures.chunk_meters import to_numbers
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.measures.registry import meters_of
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

_BLOCK_FRAMES = 1 << 16


def reference_readings(
    source: StoredObject,
    audio: AudioInfo,
    features: FeatureSpec,
    places: Sequence[Place],
    feature: str,
) -> list[Samples]:
    """Return the measures of a feature for some chunks of a recording.

    Parameters
    ----------
    source, audio
        The recording, and its header.
    features
        The recipe.
    places
        The places of the chunks, in any order.
    feature
        The name of the feature.

    Returns
    -------
    list of float32 [measures]
        The readings of each chunk, in the order of the feature's columns; NaN for null.

    Raises
    ------
    RecordingError
        The recording cannot be read.
    """
    measures = features.measured[feature].measures
    meters, rate_hz = meters_of(measures), audio.sample_rate_hz
    return [
        to_numbers(measure_samples(chunk, rate_hz, meters), measures)
        for chunk in _read_chunks(source, audio, features, places)
    ]


def _read_chunks(
    source: StoredObject, audio: AudioInfo, features: FeatureSpec, places: Sequence[Place]
) -> list[Samples]:
    """Return the frames of chunks at the recording's own rate, float32 [frames, channels]."""
    at_own = features.at_rate(audio.sample_rate_hz)
    own = [place_at_rate(place, features, at_own, audio.frames) for place in places]
    chunks = [np.empty((place.valid, audio.channels), np.float32) for place in own]
    position = 0
    with open_audio(source, audio) as reader:
        for block in reader.blocks(0, audio.frames, _BLOCK_FRAMES):
            for place, chunk in zip(own, chunks, strict=True):
                first = max(position, place.start)
                stop = min(position + len(block), place.start + place.valid)
                if first < stop:
                    part = block[first - position : stop - position]
                    chunk[first - place.start : stop - place.start] = part
            position += len(block)
    return chunks
