"""The number of valid frames is that of the frames whose window covers a valid sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from melmill.pipelines.config import load_config, shipped_recipes
from melmill.transforms.features.chunks import ChunkSpec, Place, place_chunk
from melmill.transforms.features.decoded_spans import place_at_rate
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.mel_spec import MelSpec, contradictions
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft_spec import StftSpec, framing, stft_contradictions, win_length
from melmill.transforms.features.valid_counts import count_valid, valid_frames
from melmill.transforms.features.waveform import WaveformSpec
from tests.signals import noise

BARE = "log: {kind: ln, floor: 1e-5, top_db: null}"


def count_one_by_one(spec: StftSpec, length: int, valid: int) -> int:
    """Return the last frame, from 1, whose window covers one of the first `valid` samples."""
    places = framing(spec, length)
    is_valid = np.arange(length) < valid
    padded = np.pad(is_valid, (places.before_samples, places.after_samples))
    frames = np.lib.stride_tricks.sliding_window_view(padded, places.frame_samples)
    frames = frames[:: places.hop_samples][: places.n_frames]
    window = np.zeros(places.frame_samples, bool)
    before = (places.frame_samples - win_length(spec)) // 2
    window[before : before + win_length(spec)] = True
    covered = np.flatnonzero((frames & window).any(axis=1))
    return 0 if not len(covered) else int(covered[-1]) + 1


SPECS = st.builds(
    StftSpec,
    n_fft=st.integers(1, 60),
    win_length=st.none() | st.integers(1, 60),
    hop_length=st.integers(1, 20),
    window_position=st.sampled_from(["center", "left"]),
    center=st.booleans(),
    pad_samples=st.none() | st.integers(0, 70),
    snip_edges=st.booleans(),
    drop_last_frame=st.booleans(),
)


# A window of one sample, between the frame's two samples and so before the chunk.
@example(StftSpec(n_fft=2, win_length=1, hop_length=1, center=False, snip_edges=False), 1, 1)
@given(SPECS, st.integers(1, 200), st.integers(1, 200))
def test_the_number_is_what_counting_frame_by_frame_gives(
    spec: StftSpec, length: int, valid: int
) -> None:
    assume(not list(stft_contradictions(spec, length)))
    valid = min(valid, length)
    place = Place(0, 0, valid, valid)
    expected = count_one_by_one(spec, length, valid)
    assert valid_frames(spec, ChunkSpec(length, length), place) == expected


@pytest.mark.parametrize("stack", [2, 3, 7])
def test_a_stacked_frame_is_valid_if_one_of_its_frames_is(stack: int) -> None:
    spec = MelSpec(n_fft=400, hop_length=160, n_mels=20, stack_frames=stack)
    assert not contradictions(spec, 16_000, 8_000)
    chunk, shape = ChunkSpec(8_000, 8_000), 51 // stack
    single = replace(spec, stack_frames=1)
    for valid in (1, 300, 2_345, 8_000):
        frames = np.arange(51) < count_one_by_one(single, 8_000, valid)
        stacked = frames[: shape * stack].reshape(shape, stack).any(axis=1)
        assert valid_frames(spec, chunk, Place(0, 0, valid, valid)) == stacked.sum()


def test_frames_that_the_recipe_overwrites_are_not_valid() -> None:
    features = load_config("parakeet", ()).feature_spec()
    (feature,) = features.features
    assert isinstance(feature.spec, MelSpec)
    assert feature.spec.padded_frames is not None
    length = features.chunk.length
    samples = np.zeros((1, length), np.float32)
    samples[0, :5_000] = noise(1, 16_000)[:5_000]
    mel = extract_features(samples, [5_000], features)["mel"][0]
    number = valid_frames(feature.spec, features.chunk, Place(0, 0, 5_000, 5_000))
    assert (mel[:, number:] == feature.spec.padded_frames).all()
    assert (mel[:, :number] != feature.spec.padded_frames).any(axis=0).all()


def test_repeated_samples_are_not_valid() -> None:
    chunk = ChunkSpec(8_000, 8_000, short="repeat")
    spec = MelSpec(n_fft=400, hop_length=160, n_mels=20, padded_frames=0.0)
    place = place_chunk(0, 3_000, chunk)
    assert (place.valid, place.filled) == (3_000, 8_000)
    assert valid_frames(spec, chunk, place) == count_one_by_one(spec, 8_000, 3_000)


RECIPES = [name for name in shipped_recipes() if not name.startswith("waveform")]


@pytest.mark.parametrize("name", RECIPES)
def test_all_frames_of_a_whole_chunk_of_a_shipped_recipe_are_valid(name: str) -> None:
    features = load_config(name, ()).feature_spec()
    (feature,), (column,) = features.features, features.columns
    assert isinstance(feature.spec, StftSpec)
    whole = place_chunk(0, features.chunk.length, features.chunk)
    assert valid_frames(feature.spec, features.chunk, whole) == column.shape[1]


@pytest.mark.parametrize(
    "entry",
    [
        f"{{name: f, kind: mel, n_fft: 512, hop_length: 160, n_mels: 20, {BARE}}}",
        f"{{name: f, kind: mel, n_fft: 512, win_length: 400, hop_length: 160, n_mels: 20, {BARE}}}",
        f"{{name: f, kind: mel, n_fft: 512, hop_length: 160, center: false, n_mels: 20, {BARE}}}",
        "{name: f, kind: stft, n_fft: 512, hop_length: 125}",
        "{preset: kaldi-fbank-23, name: f}",
    ],
)
def test_frames_after_the_valid_ones_do_not_hear_the_recording(entry: str) -> None:
    settings = ("audio.sample_rate_hz=16000", "chunk.seconds=0.5", f"features=[{entry}]")
    features = load_config(None, settings).feature_spec()
    samples = np.zeros((2, 8_000), np.float32)
    samples[:, :3_333] = np.random.default_rng(0).normal(0, 0.1, (2, 3_333))
    one, other = extract_features(samples, [3_333] * 2, features)["f"]
    (number,) = count_valid(features, [[place_chunk(0, 3_333, features.chunk)]])["f_valid_frames"]
    assert 0 < number < one.shape[1]
    np.testing.assert_array_equal(one[:, number:], other[:, number:])
    # Of the last valid frame, the window may weigh a few samples down to the logarithm's floor.
    assert (one[:, : number - 1] != other[:, : number - 1]).any(axis=0).all()


def test_with_neighbours_all_frames_of_a_whole_chunk_are_valid() -> None:
    spec = StftSpec(n_fft=512, win_length=100, hop_length=100, center=False)
    chunk = ChunkSpec(1_000, 1_000, edges="neighbours")
    assert valid_frames(spec, chunk, Place(3, 3_000, 1_000, 1_000)) == 10
    assert valid_frames(spec, chunk, Place(3, 3_000, 650, 650)) == 5  # 206 + 100 t < 650


def test_a_row_has_a_number_for_each_feature_with_time() -> None:
    entries = (
        Feature("mel", MelSpec()),
        Feature("spectrum", StftSpec(n_fft=400, hop_length=160), 16_000),
        Feature("samples", WaveformSpec()),
        Feature("slow", WaveformSpec(), 8_000),
    )
    features = FeatureSpec(features=entries)
    place = place_chunk(0, 20_000, features.chunk)
    places = [place_at_rate(place, features, at, 10**6) for at in features.by_rate]
    seconds = 20_000 / 22_050
    numbers = {name: n for name, (n,) in count_valid(features, [places]).items()}
    assert numbers["valid_frames"] == count_one_by_one(MelSpec(), 66_150, 20_000)
    assert numbers["slow_valid_samples"] == int(np.ceil(seconds * 8_000))
    spectrum = StftSpec(n_fft=400, hop_length=160)
    valid = int(np.ceil(seconds * 16_000))
    assert numbers["spectrum_valid_frames"] == count_one_by_one(spectrum, 48_000, valid)
    assert len(numbers) == 3
    assert [c.valid for c in features.columns] == [
        "valid_frames",
        "spectrum_valid_frames",
        "valid_samples",
        "slow_valid_samples",
    ]
