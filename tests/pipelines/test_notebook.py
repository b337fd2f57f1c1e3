"""Tests that a notebook computes the same features as the pipeline stores, bit for bit."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from deltalake import DeltaTable

import melmill
from melmill.pipelines.config import load_config
from melmill.pipelines.notebook.audio import Audio, load
from melmill.transforms.core.errors import ConfigError, RecordingError
from tests.pipeline_runs import extract_here
from tests.signals import noise, song, write_audio

#: Name, sample rate, number of channels and seconds of each recording.
RECORDINGS = (
    ("a.wav", 44_100, 2, 7.4),
    ("b.flac", 22_050, 2, 9.0),
    ("c.mp3", 48_000, 2, 4.0),
    ("d.ogg", 32_000, 2, 10.7),
    ("e.m4a", 44_100, 2, 6.1),
    ("f.opus", 48_000, 2, 1.2),
)
RECIPES = {
    "default": (),
    "each channel, rounded": ("audio.channels=each", "output.resolution=1/64"),
    "overlapping, padded": (
        *("chunk.seconds=2", "chunk.hop_seconds=0.75", "chunk.tail=pad", "chunk.short=repeat"),
        *("mel.log.kind=log10", "mel.log.top_db=null", "mel.n_mels=40"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed, (name, rate, channels, seconds) in enumerate(RECORDINGS):
        sound = song(seconds, rate, seed, channels) + noise(seconds, rate, seed, channels, 0.02)
        write_audio(folder / name, sound, rate)
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_notebook_computes_the_stored_rows(folder, tmp_path, recipe):
    # With one shard per split, no recording is cut in two.
    overrides = (*RECIPES[recipe], "output.min_shards=1")
    extract_here(folder, tmp_path / "dataset", *overrides)
    table = DeltaTable(tmp_path / "dataset").to_pyarrow_table().to_pylist()
    compared = 0
    for name, *_ in RECORDINGS:
        audio = load(folder / name, load_config(None, overrides))
        stored = [row for row in table if row["uri"] == str(folder / name)]
        stored.sort(key=lambda row: (row["chunk_index"], row.get("channel", 0)))
        mel = audio.features()
        assert len(mel) == len(stored)
        for computed, row in zip(mel, stored, strict=True):
            np.testing.assert_array_equal(computed, np.array(row["mel"], np.float32))
        chunks = [chunk for chunk in audio.chunks() for _ in range(audio.samples.shape[1])]
        for chunk, row in zip(chunks, stored, strict=True):
            assert chunk.index == row["chunk_index"]
            assert chunk.start_sample == row["start_sample"]
            assert chunk.valid_samples == row["valid_samples"]
        compared += len(stored)
    assert compared == len(table) > 0


def test_a_chunk_alone_has_the_features_it_has_among_others(folder):
    audio = load(folder / "b.flac")
    features = [chunk.features() for chunk in audio.chunks()]
    np.testing.assert_array_equal(np.concatenate(features), audio.features())


def test_the_samples_are_librosas(folder):
    import librosa

    audio = load(folder / "a.wav")
    expected, rate = librosa.load(folder / "a.wav", sr=22_050)
    assert (audio.sample_rate_hz, audio.samples.shape) == (rate, (len(expected), 1))
    assert audio.seconds == pytest.approx(7.4, abs=1e-4)
    # soxr in blocks equals soxr on the whole recording. librosa's mean of two channels may round
    # once more.
    np.testing.assert_allclose(audio.samples[:, 0], expected, rtol=0, atol=1e-6)


def test_a_recipe_may_be_a_file(folder, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"audio": {"sample_rate_hz": 8000}}))
    assert load(folder / "a.wav", tmp_path / "recipe.yaml").sample_rate_hz == 8000


def test_what_is_too_short_has_no_features(folder):
    pytest.importorskip("matplotlib")
    audio = load(folder / "f.opus", load_config(None, ["chunk.short=drop"]))
    assert audio.features().shape == (0, 128, 130)
    assert len(audio.plot().axes) == 2


def test_a_player_holds_every_channel(folder):
    pytest.importorskip("IPython")
    audio = load(folder / "a.wav", load_config(None, ["audio.channels=each"]))
    sound = audio.play().data
    assert sound[:4] == b"RIFF"
    assert int.from_bytes(sound[22:24], "little") == 2
    assert int.from_bytes(sound[24:28], "little") == 22_050


@pytest.mark.parametrize("quality", ["basic", "full"])
def test_the_readings_are_those_of_a_dataset(folder, tmp_path, quality):
    extract_here(folder, tmp_path / "dataset", f"quality={quality}")
    table = melmill.open(tmp_path / "dataset").recordings(["uri", "measures"]).to_pylist()
    stored = {row["uri"]: row["measures"] for row in table}
    for name, *_ in RECORDINGS:
        for measure, value in load(folder / name).measures(quality).items():
            group, own = measure.split(".")
            readings = stored[str(folder / name)]
            if readings is not None:  # a recording without a chunk is not measured
                assert readings[group][own] == value


def test_a_plot_shows_waveform_and_spectrogram(folder, tmp_path):
    pytest.importorskip("matplotlib")
    audio = load(folder / "b.flac")
    wave, spectrum, scale = audio.plot().axes
    assert len(wave.lines[0].get_xdata()) == len(audio.samples)
    assert [image.get_array().shape for image in spectrum.images] == [(128, 130)] * 3
    half_a_frame = 256 / 22_050  # the middle of frame 0 is at the start of the chunk
    starts = [image.get_extent()[0] + half_a_frame for image in spectrum.images]
    assert starts == pytest.approx([0, 3, 6])
    assert scale.get_ylabel() == "dB"
    last_chunk = list(audio.chunks())[-1]
    figure = last_chunk.plot()
    assert figure.axes[0].get_xlim() == pytest.approx((6, 9), abs=1e-3)
    assert figure.axes[0].get_title() == "b.flac, chunk 2: 6.00 to 9.00 s"
    figure.savefig(tmp_path / "chunk.png")
    assert (tmp_path / "chunk.png").stat().st_size > 1000


def test_a_plot_has_axes_in_hz_and_seconds(folder):
    import librosa

    pytest.importorskip("matplotlib")
    wave, spectrum, _ = load(folder / "b.flac").plot().axes
    assert spectrum.get_xlabel() == "Time in the recording (s)"
    assert spectrum.get_ylabel() == "mel: Frequency (Hz)"
    assert wave.get_xlim() == spectrum.get_xlim() == pytest.approx((0, 9), abs=1e-3)
    centres_hz = librosa.mel_frequencies(130, fmax=22_050 / 2)[1:-1]
    ticks = {label.get_text(): label.get_position()[1] for label in spectrum.get_yticklabels()}
    assert {"500", "1k", "5k"} <= {*ticks}
    for text, band in ticks.items():
        frequency_hz = float(text.replace("k", "e3"))
        assert np.interp(band, range(128), centres_hz) == pytest.approx(frequency_hz, abs=1)


def borders(axes):
    """Return the places of the vertical lines, without repetitions."""
    lines = (line.get_xdata() for line in axes.lines)
    return sorted({round(float(x[0]), 3) for x in lines if len(x) == 2 and x[0] == x[1]})


def test_chunks_are_drawn_on_the_waveform_with_their_borders_and_padding(folder):
    pytest.importorskip("matplotlib")
    padded = load(folder / "a.wav", load_config(None, ["chunk.tail=pad"]))
    wave, spectrum, _ = padded.plot().axes
    assert borders(wave) == [0, 3, 6, 9]
    assert borders(spectrum) == [3, 6]
    texts = {text.get_text(): text.xy[0] for text in wave.texts}
    assert texts == pytest.approx({"chunk 0": 0, "chunk 1": 3, "chunk 2": 6, "padding": 7.4})
    assert wave.get_xlim() == pytest.approx((0, 9))
    overlapping = load(folder / "b.flac", load_config(None, ["chunk.hop_seconds=2"]))
    assert borders(overlapping.plot().axes[0]) == [0, 2, 3, 4, 5, 6, 7, 9]


def test_a_picture_is_sharp_and_opaque(folder):
    """The background is opaque, so that black numbers are legible in a dark theme, too."""
    pytest.importorskip("matplotlib")
    from PIL import Image

    bundle, sizes = load(folder / "b.flac").plot()._repr_mimebundle_()
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    size = sizes["image/png"]
    assert picture.size == (2 * size["width"], 2 * size["height"])
    assert picture.getchannel("A").getextrema() == (255, 255)
    assert picture.getpixel((0, 0)) == (255, 255, 255, 255)


def test_a_spectrogram_is_drawn_on_axes(folder):
    from matplotlib.figure import Figure

    panels = Figure().subplots(1, 2)
    for axes, chunk in zip(panels, load(folder / "b.flac").chunks(), strict=False):
        chunk.draw(axes)
        assert len(axes.images) == 1
        assert "Hz" in axes.get_ylabel()
    with pytest.raises(ConfigError, match="no spectrogram 'stft'; the recipe has: mel"):
        load(folder / "b.flac").draw(panels[0], "stft")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", [0, 1, 22_050])
def test_silence_and_nothing_play_and_plot(samples):
    pytest.importorskip("IPython")
    audio = Audio("a.wav", np.zeros((samples, 1), np.float32), load_config(None).feature_spec())
    assert audio.play().data[:4] == b"RIFF"
    assert len(audio.plot().axes) >= 2


@pytest.mark.parametrize(
    ("function", "package", "blocked"),
    [(Audio.play, "IPython", "IPython"), (Audio.plot, "matplotlib", "matplotlib.figure")],
)
def test_a_missing_package_is_named(monkeypatch, function, package, blocked):
    monkeypatch.setitem(sys.modules, blocked, None)
    audio = Audio("a.wav", np.zeros((100, 1), np.float32), load_config(None).feature_spec())
    with pytest.raises(ImportError, match=rf"{package} is not installed.*melmill\[notebook\]"):
        function(audio)


def test_bad_input_is_named(folder, tmp_path):
    with pytest.raises(RecordingError, match=r"nowhere\.wav"):
        load(tmp_path / "nowhere.wav")
    (tmp_path / "text.mp3").write_text("la la la")
    with pytest.raises(RecordingError, match="format"):
        load(tmp_path / "text.mp3")
    (tmp_path / "bad.yaml").write_text("audio: {sample_rate: 8000}")
    with pytest.raises(ConfigError, match="sample_rate"):
        load(folder / "a.wav", tmp_path / "bad.yaml")
    mono = tmp_path / "mono.wav"
    write_audio(mono, noise(1.0, 8000, 0), 8000)
    with pytest.raises(RecordingError, match="channel"):
        load(mono, load_config(None, ["audio.channels=right"]))


def test_a_notebook_needs_no_beam():
    program = "import sys, melmill.pipelines.notebook.audio; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
