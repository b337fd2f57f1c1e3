"""The words of variants give a chunk the same bits, however its recording is divided into spans."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.features.chunks import ChunkSpec, count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Place, Span, read_chunks
from melmill.transforms.features.sounds import examine_sound
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.variants import change_of
from melmill.transforms.features.variants_spec import (
    Codec,
    Gain,
    Noise,
    Rir,
    Sounds,
    Speed,
    VariantSpec,
)
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.store.objects import StoredObject
from tests import signals

RATE = 8000
CHUNK = ChunkSpec(2000, 1500, tail="pad")

Chunks = list[tuple[Place, bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds")
    signals.write_audio(path / "song.wav", signals.song(3.3, 2 * RATE, 1, 2), 2 * RATE)
    signals.write_audio(path / "noise.wav", signals.noise(1.0, 11_025, 2), 11_025)
    signals.write_audio(path / "room.wav", signals.noise(0.3, RATE, 3), RATE)
    return path


def features_of(folder: Path) -> FeatureSpec:
    noise, room = (
        Sounds(name, files=(examine_sound(StoredObject(str(folder / name))),))
        for name in ("noise.wav", "room.wav")
    )
    words = Speed(0.9), Noise(noise, 0, 20), Rir(room), Codec("opus@16k"), Gain(-6, 6)
    return FeatureSpec(
        sample_rate_hz=RATE,
        chunk=CHUNK,
        features=(Feature("samples", WaveformSpec()),),
        variants=(VariantSpec(words),),
    )


def chunks_of(folder: Path, features: FeatureSpec, first: int, stop: int | None = None) -> Chunks:
    """Return the chunks of a span of the song's variant, up to its end if `stop` is ``None``."""
    source = StoredObject(str(folder / "song.wav"))
    audio = probe_audio(source)
    samples = resampled_length(audio.frames, audio.sample_rate_hz * features.speed_of(1), RATE)
    probed = ProbedRecording(Recording("id", source.uri, "song.wav"), audio)
    stop = count_chunks(samples, CHUNK) if stop is None else stop
    span = Span(probed, 0, samples, first, stop, variant=1)
    change_at = partial(change_of, span, features, "", ())
    chunks = read_chunks(span, features, source, (), change_at)
    return [(place, chunk.tobytes()) for ((place, chunk),) in chunks]


@pytest.fixture(scope="module")
def features(folder: Path) -> FeatureSpec:
    return features_of(folder)


@pytest.fixture(scope="module")
def whole(folder: Path, features: FeatureSpec) -> Chunks:
    return chunks_of(folder, features, 0)


def test_the_middle_of_a_recording_is_the_same_alone(
    folder: Path, features: FeatureSpec, whole: Chunks
) -> None:
    assert chunks_of(folder, features, 6, 8) == whole[6:8]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chunks_have_the_same_bits_in_any_span(
    folder: Path, features: FeatureSpec, whole: Chunks, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(first + 1, len(whole)))
    assert chunks_of(folder, features, first, stop) == whole[first:stop]


def test_chunks_are_changed_and_padding_stays(whole: Chunks) -> None:
    place, content = whole[-1]
    samples = np.frombuffer(content, np.float32)[place.around.before :]
    assert place.valid < CHUNK.length == len(samples)
    assert samples[: place.valid].any()
    assert not samples[place.valid :].any()
