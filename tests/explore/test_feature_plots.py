"""The axes of plots: a click is drawn at its second, and a tone at its frequency."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.explore.chunk_rows import Chunk
from melmill.pipelines.explore.feature_plots import FeaturePlot, band_centres, plot_of
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.mfcc import MfccSpec
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.pcen import PcenSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft import StftExtractor
from melmill.transforms.features.stft_spec import StftSpec, framing_with_neighbours
from melmill.transforms.features.waveform import WaveformSpec
from tests import signals

RATE, LENGTH = 8000, 16_000
#: The chunk begins at 6 s.
CHUNK = Chunk("part", 0, 0, 3, 48_000, LENGTH, RATE, 0.0, 0.0)

FRAMES: dict[str, dict[str, Any]] = {
    "centred": {},
    "from the first sample": {"center": False},
    "padded": {"center": False, "pad_samples": 70},
    "centred in hops": {"center": False, "snip_edges": False},
    "short window": {"win_length": 200, "center": False, "window_position": "left"},
}


def plot(spec: Any, chunk: Chunk = CHUNK, **chunk_settings: Any) -> FeaturePlot:
    chunks = ChunkSpec(LENGTH, LENGTH, **chunk_settings)
    features = FeatureSpec(RATE, chunk=chunks, features=(Feature("x", spec),))
    return plot_of(features.columns[0], features.features[0], features, chunk)


@pytest.mark.parametrize("settings", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("at_seconds", [0.25, 1.1])
def test_a_click_is_drawn_at_its_second(settings: dict[str, Any], at_seconds: float) -> None:
    spec = StftSpec(n_fft=256, hop_length=100, **settings)
    samples = signals.click(LENGTH / RATE, RATE, at_seconds)
    values = StftExtractor(spec, LENGTH)(samples.reshape(1, -1))[0]
    shown = plot(spec)
    assert shown.shape == values.shape
    second = shown.x.start + values.sum(axis=0).argmax() * shown.x.step
    assert abs(second - (6 + at_seconds)) <= shown.x.step / 2 + 1e-9


def test_a_click_is_drawn_at_its_second_where_frames_see_the_neighbours() -> None:
    spec = StftSpec(n_fft=256, hop_length=100)
    around = framing_with_neighbours(spec, LENGTH)
    samples = signals.click(LENGTH / RATE, RATE, 0.5)
    padded = np.pad(samples.ravel(), (around.before_samples, around.after_samples))
    values = StftExtractor(spec, LENGTH, "neighbours")(padded.reshape(1, -1))[0]
    shown = plot(spec, edges="neighbours")
    assert shown.shape == values.shape
    second = shown.x.start + values.sum(axis=0).argmax() * shown.x.step
    assert abs(second - 6.5) <= shown.x.step / 2 + 1e-9


def test_a_click_in_stacked_frames_is_drawn_at_its_second() -> None:
    spec = MelSpec(n_fft=256, hop_length=100, n_mels=8, stack_frames=4)
    values = MelExtractor(spec, RATE, LENGTH)(signals.click(2.0, RATE, 0.5).reshape(1, -1))[0]
    shown = plot(spec)
    assert shown.shape == values.shape
    assert len(shown.centres_hz) == 32
    assert shown.ticks == ()  # bands repeat, so the axis has no order of frequencies
    second = shown.x.start + values.max(axis=0).argmax() * shown.x.step
    assert abs(second - 6.5) <= shown.x.step / 2 + 1e-9


@pytest.mark.parametrize(
    "spec",
    [
        MelSpec(n_fft=1024, hop_length=256, n_mels=40),
        MelSpec(n_fft=1024, hop_length=256, n_mels=32, scale="htk", f_min_hz=100, f_max_hz=3000),
        PcenSpec(n_fft=1024, hop_length=256, n_mels=40),
        StftSpec(n_fft=512, hop_length=256),
    ],
)
def test_a_tone_is_drawn_at_its_frequency(spec: StftSpec) -> None:
    samples = signals.tone(1000.0, LENGTH / RATE, RATE).reshape(1, -1)
    if isinstance(spec, MelSpec):
        plain = MelSpec(**{n: getattr(spec, n) for n in ("n_fft", "hop_length", "n_mels", "scale")})
        plain = replace(plain, f_min_hz=spec.f_min_hz, f_max_hz=spec.f_max_hz)
        values = MelExtractor(plain, RATE, LENGTH)(samples)[0]
    else:
        values = StftExtractor(spec, LENGTH)(samples)[0]
    centres = np.array(plot(spec).centres_hz)
    band = int(values.mean(axis=1).argmax())
    assert band == np.abs(centres - 1000).argmin()


def test_mel_bands_have_librosas_centres() -> None:
    librosa = pytest.importorskip("librosa")
    spec = MelSpec(n_mels=64, f_min_hz=50, f_max_hz=3500)
    expected = librosa.mel_frequencies(66, fmin=50, fmax=3500)[1:-1]
    np.testing.assert_allclose(band_centres(spec, RATE), expected, rtol=1e-9)


def test_ticks_are_round_frequencies_at_the_places_of_their_bands() -> None:
    shown = plot(MelSpec(n_fft=1024, n_mels=40))
    assert [text for _, text in shown.ticks] == ["100", "500", "1k", "2k"]
    for place, text in shown.ticks:
        hz = float(text.replace("k", "000"))
        assert np.interp(place, np.arange(40), shown.centres_hz) == pytest.approx(hz)


def test_mfcc_have_coefficients_and_no_frequencies() -> None:
    shown = plot(MfccSpec(n_mfcc=13))
    assert (shown.shape[0], shown.y.word, shown.centres_hz, shown.ticks) == (
        13,
        "coefficient",
        (),
        (),
    )


def test_a_waveform_is_a_line_at_its_own_rate() -> None:
    feature = Feature("x", WaveformSpec("int16", encoding="flac"), sample_rate_hz=4000)
    features = FeatureSpec(RATE, chunk=ChunkSpec(LENGTH, LENGTH), features=(feature,))
    shown = plot_of(features.columns[0], feature, features, CHUNK)
    assert (shown.form, shown.shape, shown.x.start, shown.x.step) == ("line", (8000,), 6.0, 0.00025)


@pytest.mark.parametrize(
    ("shape", "form", "drawn"),
    [((5,), "line", (5,)), ((4, 6), "heatmap", (4, 6)), ((2, 3, 4), "heatmap", (6, 4))],
)
def test_the_output_of_a_model_is_drawn_by_its_shape(
    shape: tuple[int, ...], form: str, drawn: tuple[int, ...]
) -> None:
    shown = plot(ModelSpec("m.onnx", shape, "int32"))
    assert (shown.form, shown.shape, shown.centres_hz) == (form, drawn, ())
    assert bool(shown.note) == (len(shape) > 2)


def test_a_feature_that_the_recipe_does_not_have_is_drawn_by_its_shape() -> None:
    shown = plot_of(FeatureColumn("old", (3, 4)), None, FeatureSpec(), CHUNK)
    assert (shown.form, shown.kind) == ("heatmap", "unknown")


def test_padding_begins_where_the_real_samples_end_and_repetition_is_none() -> None:
    half = replace(CHUNK, valid_samples=LENGTH // 2)
    assert plot(StftSpec(), CHUNK).padding_from is None
    assert plot(StftSpec(), half).padding_from == 7.0
    first = replace(half, chunk_index=0)
    assert plot(StftSpec(), first, short="repeat").padding_from is None
    assert plot(StftSpec(), half, short="repeat").padding_from == 7.0
