"""A recipe's front end as a layer: the values are those that melmill stores."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import melmill
from melmill.pipelines.layers.front_end import make_front_end
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec, contradictions
from melmill.transforms.features.standardization import StandardizationSpec
from tests import signals
from tests.features.references import RECIPES, chunks_for, expected, features_of, ours
from tests.pipeline_runs import extract_here

RATE = 16_000
MELS = [name for name in RECIPES if type(features_of(name).features[0].spec) is MelSpec]
LOGARITHMS = [
    LogSpec(),
    LogSpec(ref="max", top_db=60.0),
    LogSpec(top_db=None, ref=2.0),
    LogSpec("ln", top_db=None, offset=1e-6),
    LogSpec("log10", top_db=None, range=6.0),
    LogSpec("log10", top_db=None, gain=10.0, range=3.0, range_top=0.5),
    LogSpec("none", top_db=None),
]
STANDARDIZATIONS = [
    None,
    StandardizationSpec(ddof=1, std_epsilon=1e-5),
    StandardizationSpec(mean=-4.0, std=2.0),
    StandardizationSpec(std=1.0),
]


def framework(name: str) -> str:
    """Return a framework's name; skip the test if it is not installed."""
    pytest.importorskip({"keras": "tensorflow"}.get(name, name))
    return name


def values_of(layer: Any, *arrays: Any) -> Any:
    """Return the result of a layer of any framework as NumPy's array."""
    if type(layer).__module__.endswith("torch_layer"):
        torch = importlib.import_module("torch")
        arrays = tuple(torch.from_numpy(np.asarray(array)) for array in arrays)
    return np.asarray(layer(*arrays))


# JAX compiles each function for a second. PyTorch has an environment of its own.
@pytest.fixture(params=["keras", pytest.param("jax", marks=pytest.mark.slow), "torch"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return ``melmill.layer`` for each framework."""
    name = framework(request.param)
    return lambda recipe, **options: melmill.layer(recipe, name, **options)


@pytest.mark.parametrize("name", MELS)
def test_the_values_are_the_formulas(make: Callable[..., Any], name: str) -> None:
    layer, spec = make(name), features_of(name)
    chunk = next(chunks_for(spec))
    stored = ours(chunk, spec)
    values = values_of(layer, chunk[np.newaxis])[0]
    assert values.dtype == np.float32
    assert values.shape == stored.shape
    if name == "librosa":
        tolerance: Any = 1e-4  # dB; librosa itself is compared in tests/features/test_mel.py
    else:
        formula, tolerance = expected(name, chunk, spec)
        assert (np.abs(values - formula) <= tolerance).all()
    # Each is within the tolerance of the formula, so they are within twice of it to each other.
    assert (np.abs(values - stored) <= 2 * tolerance).all()


@pytest.mark.parametrize("name", ["parakeet", "speech2text", "clap-fused"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_padded_chunks_have_the_stored_values(
    make: Callable[..., Any], name: str, share: float
) -> None:
    spec = features_of(name)
    chunk = next(chunks_for(spec)).copy()
    valid = max(1, round(share * len(chunk)))
    chunk[valid:] = 0.0
    values = values_of(make(name), np.stack([chunk, chunk]), np.array([valid, len(chunk)]))
    for number, length in enumerate([valid, len(chunk)]):
        # Standardization of a few frames divides by what is hardly more than rounding.
        np.testing.assert_allclose(values[number], ours(chunk, spec, length), rtol=0, atol=2e-3)


@st.composite
def specs(draw: Any) -> MelSpec:
    n_fft = draw(st.sampled_from([256, 400, 512, 1021]))
    win_length = draw(st.none() | st.integers(n_fft // 3, n_fft))
    center = draw(st.booleans())
    snip_edges = center or draw(st.booleans())
    power = draw(st.sampled_from([1, 2]))
    return MelSpec(
        n_fft=n_fft,
        win_length=win_length,
        hop_length=draw(st.integers(60, win_length or n_fft)),
        window=draw(st.sampled_from(["hann", "povey", "hamming"])),
        periodic=draw(st.booleans()),
        window_position="center" if center else draw(st.sampled_from(["center", "left"])),
        center=center,
        snip_edges=snip_edges,
        pad_samples=None if center or not snip_edges else draw(st.none() | st.integers(0, 300)),
        pad_mode=draw(st.sampled_from(["constant", "edge", "reflect", "symmetric"])),
        drop_last_frame=draw(st.booleans()),
        sample_scale=draw(st.sampled_from([1.0, 32768.0])),
        remove_dc_offset=draw(st.booleans()),
        preemphasis=draw(st.sampled_from([0.0, 0.97])),
        preemphasis_over=draw(st.sampled_from(["frame", "chunk"])),
        power=power,
        magnitude_epsilon=draw(st.sampled_from([0.0, 1e-6])) if power == 1 else 0.0,
        n_mels=draw(st.integers(1, 40)),
        scale=draw(st.sampled_from(["slaney", "htk"])),
        norm="none",
        triangles=draw(st.sampled_from(["hz", "mel"])),
        empty_bands=True,
        log=draw(st.sampled_from(LOGARITHMS)),
        standardization=draw(st.sampled_from(STANDARDIZATIONS)),
        padded_frames=draw(st.sampled_from([None, 0.0, -1.5])),
        stack_frames=draw(st.sampled_from([1, 2, 3])),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(specs(), st.integers(700, 4000), st.floats(0.0, 1.0), st.integers(0, 5))
def test_the_values_are_melmills_for_every_spec(
    spec: MelSpec, samples: int, share: float, seed: int
) -> None:
    # Keras on TensorFlow compiles nothing, so it is quick with ever other shapes.
    keras_layer = importlib.import_module(f"melmill.pipelines.layers.{framework('keras')}_layer")
    assume(not contradictions(spec, RATE, samples))
    chunk = np.float32(signals.noise(samples / RATE + 1, RATE, seed)[:samples])
    valid = max(1, round(share * samples))
    chunk[valid:] = 0.0
    layer = keras_layer.KerasFrontEnd(make_front_end(spec, RATE, samples))
    values = np.asarray(layer(chunk[np.newaxis], np.array([valid])))[0]
    stored = MelExtractor(spec, RATE, samples)(chunk[np.newaxis], valid_samples=[valid])[0]
    # The spectra round at 1e-7 of the loudest bin; small values show more of it in a logarithm.
    scale = np.abs(stored).max() if spec.log.kind == "none" else 1.0
    np.testing.assert_allclose(values, stored, rtol=1e-3, atol=2e-2 * scale)
    assert np.median(np.abs(values - stored)) <= 1e-4 * scale


def test_stored_waveforms_become_the_stored_mels(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    signals.write_audio(songs / "song.wav", signals.song(5.0, RATE), RATE)
    recipe = ["features=[{name: mel, kind: mel}, {name: samples, kind: waveform}]"]
    recipe.append(f"audio.sample_rate_hz={RATE}")
    extract_here(songs, tmp_path / "set", *recipe)
    table = melmill.open(tmp_path / "set").as_arrow().to_table()
    layer = melmill.layer(None, framework("jax"), settings=recipe)
    samples, mels = (np.array(table[name].to_pylist(), np.float32) for name in ("samples", "mel"))
    values = layer(samples, np.array(table["valid_samples"]))
    np.testing.assert_allclose(values, mels, rtol=0, atol=1e-3)  # dB


def test_a_saved_keras_model_computes_the_same(tmp_path: Path) -> None:
    framework("keras")
    import keras

    mel = melmill.layer("vggish", "keras")
    model = keras.Sequential([keras.Input((mel.front_end.chunk_samples,)), mel])
    chunk = next(chunks_for(features_of("vggish")))[np.newaxis]
    assert model.output_shape == (None, *mel.front_end.shape)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(chunk), again.predict(chunk))
    np.testing.assert_allclose(model.predict(chunk), mel(chunk), atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["whisper-80", *(pytest.param(n, marks=pytest.mark.slow) for n in ("hifigan", "librosa"))],
)
def test_gradients_are_finite_in_silence_and_jax_compiles(name: str) -> None:
    jax = importlib.import_module(framework("jax"))
    layer = melmill.layer(name, "jax", settings=["chunk.seconds=1"])
    samples = features_of(name).sample_rate_hz
    chunks = np.zeros((1, samples), np.float32)
    gradient = jax.jit(jax.grad(lambda x: layer(x).sum()))(chunks)
    assert np.isfinite(gradient).all()
    chunks += np.resize(next(chunks_for(features_of(name))), samples)
    assert np.abs(jax.grad(lambda x: layer(x).sum())(chunks)).max() > 0


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("librosa", {"framework": "mxnet"}, "framework: 'mxnet': must be one of torch, keras, jax"),
        ("kaldi-mfcc-13", {}, r"name a log-mel feature of the recipe \(none\); there is none"),
        ("librosa", {"feature": "mle"}, r"recipe \(mel\); 'mle' is none"),
        (
            None,
            {"settings": ["features=[{name: a, kind: mel}, {name: b, kind: mel}]"]},
            r"recipe \(a, b\); there are several",
        ),
        (
            "librosa",
            {"settings": ["chunk.edges=neighbours", "mel.log.top_db=null", "mel.hop_length=441"]},
            "chunk.edges: neighbours: a layer sees one chunk",
        ),
        ("librosaa", {}, "librosa"),
    ],
)
def test_what_cannot_be_a_layer_is_named(
    recipe: str | None, options: dict[str, Any], message: str
) -> None:
    framework("jax")
    with pytest.raises(ConfigError, match=message):
        melmill.layer(recipe, **{"framework": "jax", **options})


def test_a_framework_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "melmill.pipelines.layers.torch_layer", raising=False)
    with pytest.raises(ConfigError, match="torch is not installed: pip install torch"):
        melmill.layer("librosa", "torch")
