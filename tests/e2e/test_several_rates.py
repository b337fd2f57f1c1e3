"""Features at several sample rates: one decode, and the same values as at each rate alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import melmill
from melmill.pipelines.config import load_config
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.decode import decoders
from melmill.transforms.features import resample
from melmill.transforms.features.chunks import ChunkSpec, count_chunks, place_chunk
from melmill.transforms.features.decoded_spans import Span, place_at_rate
from melmill.transforms.features.spans import extract_spans
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.folders import Store
from tests.features.test_spans import span_of
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.refresh.catalogues import write_song, write_table

RATES = {"low": 4000, "mid": 6000, "high": 16_000}
MEL = "kind: mel, n_fft: 256, hop_length: 100, n_mels: 8"
ENTRIES = {
    "low": f"{{name: low, {MEL}}}",
    "mid": f"{{name: mid, {MEL}, sample_rate_hz: 6000}}",
    "high": "{name: high, kind: waveform, dtype: int16, sample_rate_hz: 16000}",
}
BASE = (
    "audio.sample_rate_hz=4000",
    "chunk.seconds=0.25",
    "chunk.tail=pad",
    "split.fractions={train: 1.0}",
)
ALL = (*BASE, f"features=[{','.join(ENTRIES.values())}]")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rates") / "songs"
    write_song(folder / "a.wav", 1, 1.1)
    write_song(folder / "b.wav", 2, 2.03, 44_100)
    write_song(folder / "c.wav", 3, 0.1, 16_000)  # padded
    write_song(folder / "d.wav", 4, 1.0, 6000)
    write_song(folder / "e.flac", 5, 1.37, 48_000)
    return folder


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rates_set") / "set"
    extract_here(songs, path, *ALL)
    return path


def rows(dataset: Path) -> dict[tuple[str, int], dict[str, Any]]:
    table = melmill.open(dataset).as_arrow().to_table().to_pylist()
    return {(Path(row["uri"]).name, row["chunk_index"]): row for row in table}


@pytest.mark.parametrize("name", list(RATES))
def test_a_feature_is_the_same_at_its_rate_alone(
    songs: Path, dataset: Path, tmp_path: Path, name: str
) -> None:
    entry = ENTRIES[name].split(", sample_rate_hz")[0].removesuffix("}") + "}"
    settings = (*BASE[1:], f"audio.sample_rate_hz={RATES[name]}", f"features=[{entry}]")
    extract_here(songs, tmp_path / "set", *settings)
    alone, together = rows(tmp_path / "set"), rows(dataset)
    assert alone.keys() == together.keys()
    for key, row in alone.items():
        assert together[key][name] == row[name], key


def test_the_shapes_are_those_of_the_rates(dataset: Path) -> None:
    shapes = {name: column.shape for name, column in melmill.open(dataset).features.items()}
    assert shapes == {"low": (8, 11), "mid": (8, 16), "high": (4000,)}
    assert {row["sample_rate_hz"] for row in rows(dataset).values()} == {4000}


def test_the_card_names_the_rates(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    assert "`low` is float32 [8, 11]: bands × frames of one chunk; the first" in card
    assert "`mid` is float32 [8, 16]: bands × frames of one chunk at 6,000 Hz; the first" in card
    assert "`high` is int16 [4000]: samples of one chunk at 16,000 Hz; the first" in card
    assert "first `high_valid_samples` of them are valid, the others are padding.\n" in card


def test_they_are_valid_verified_and_nothing_to_do(songs: Path, dataset: Path) -> None:
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    report = melmill_json("verify", dataset)
    assert report["passed"]
    assert {name.split()[-1] for name in report["formats"]} == set(RATES)
    assert not refresh_here(songs, dataset).committed


def test_a_notebook_shows_the_same(songs: Path, dataset: Path) -> None:
    stored = rows(dataset)
    for name in ("b.wav", "c.wav"):
        song = melmill.load(songs / name, load_config(None, ALL))
        for feature in RATES:
            for index, values in enumerate(song.features(feature)):
                np.testing.assert_array_equal(values, stored[name, index][feature])
        (chunk, *_) = song.chunks()
        np.testing.assert_array_equal(chunk.features("high")[0], stored[name, 0]["high"])


def test_a_recording_is_decoded_once(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_config(None, ALL).feature_spec()
    span, source = span_of(songs / "b.wav", spec)
    opened = []
    real = decoders.open_audio
    monkeypatch.setattr(
        "melmill.transforms.features.decoded_spans.open_audio",
        lambda *arguments: opened.append(1) or real(*arguments),  # type: ignore[func-returns-value]
    )
    extract_spans([span], spec, [source], tmp_path / "spool")
    assert len(opened) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([4000, 8000, 11_025, 44_100]),
    st.integers(300, 60_000),
    st.sampled_from(["drop", "pad", "shift_back"]),
    st.sampled_from([0.25, 0.1003, 0.333]),
    st.integers(1, 5),
    st.booleans(),
)
def test_rows_do_not_depend_on_how_the_work_was_divided(
    tmp_path_factory: pytest.TempPathFactory,
    rate: int,
    frames: int,
    tail: str,
    seconds: float,
    per_span: int,
    segment: bool,
) -> None:
    folder = tmp_path_factory.mktemp("divided")
    samples = np.random.default_rng(frames).normal(0, 0.1, frames)
    soundfile.write(folder / "a.wav", samples, rate)
    chunk = (f"chunk.seconds={seconds}", f"chunk.tail={tail}")
    spec = load_config(None, [*ALL, *chunk]).feature_spec()
    span, source = span_of(folder / "a.wav", spec)
    if segment and span.samples > 3:
        origin, length = span.samples // 3, span.samples // 2
        number = count_chunks(length, spec.chunk)
        span = replace(span, origin_sample=origin, samples=length, stop_chunk=number)
    if not span.chunks:
        return

    def spooled(part: Span) -> bytes:
        extract_spans([part], spec, [source], folder / "spool")
        return (folder / "spool").read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "BLOCK_SAMPLES", 1 << 12)
        parts = range(0, span.stop_chunk, per_span)
        divided = [
            replace(span, first_chunk=first, stop_chunk=min(first + per_span, span.stop_chunk))
            for first in parts
        ]
        assert b"".join(map(spooled, divided)) == spooled(span)


@given(
    st.integers(1, 10**7),
    st.sampled_from([8000, 22_050, 44_100, 48_000]),
    st.sampled_from([8000, 16_000, 22_050, 24_000, 44_100]),
    st.integers(1, 50_000),
    st.integers(1, 60_000),
    st.sampled_from(["drop", "pad", "shift_back"]),
    st.data(),
)
def test_a_chunk_has_the_same_time_at_each_rate(
    frames: int, base: int, rate: int, length: int, hop: int, tail: Any, data: st.DataObject
) -> None:
    """Frames count the recording at 44,100 Hz; places are within a sample of the exact time."""
    spec = FeatureSpec(base, chunk=ChunkSpec(length, hop, tail))
    samples, total = (-(-frames * r // 44_100) for r in (base, rate))
    number = count_chunks(samples, spec.chunk)
    index = data.draw(st.integers(0, number - 1))
    place = place_chunk(index, samples, spec.chunk)
    at_rate = spec.at_rate(rate)
    other = place_at_rate(place, spec, at_rate, total)
    assert abs(other.start / rate - place.start / base) < 1 / rate
    assert 0 <= other.start < total
    assert 1 <= other.valid <= at_rate.chunk.length
    assert other.start + other.valid <= total
    stop = (place.start + place.valid) / base
    # A sample of either rate may cover the end, and the chunk's own length is rounded.
    assert abs((other.start + other.valid) / rate - stop) < 2 / rate + 1 / base


def test_segments_of_a_table_have_the_same_rows_at_each_rate(songs: Path, tmp_path: Path) -> None:
    lines = [
        {"uri": "b.wav", "start": 0.5, "end": 1.13},
        {"uri": "e.flac", "start": 0.011, "end": 1.0},
    ]
    table = write_table(songs / "segments.jsonl", lines)
    for tail in ("pad", "shift_back"):
        extract_here(table, tmp_path / tail, *ALL, f"chunk.tail={tail}")
        assert validate(Store(str(tmp_path / tail)), 1, lambda number: None) == []
        assert melmill.verify(tmp_path / tail).passed, tail


@pytest.mark.slow
def test_presets_of_several_rates_share_a_decode(songs: Path, tmp_path: Path) -> None:
    entries = "features=[{preset: whisper-80}, {preset: waveform-encodec-24k}, {preset: hifigan}]"
    extract_here(songs, tmp_path / "set", "chunk.seconds=1", "chunk.tail=pad", entries)
    together = rows(tmp_path / "set")
    for name in ("whisper-80", "waveform-encodec-24k", "hifigan"):
        settings = ("chunk.seconds=1", "chunk.tail=pad")
        extract_here(songs, tmp_path / name, *settings, recipe=name)
        alone = rows(tmp_path / name)
        assert alone.keys() == together.keys()
        (column,) = melmill.open(tmp_path / name).features
        for key, row in alone.items():
            assert together[key][name.replace("-", "_")] == row[column]


def test_edges_that_see_their_neighbours(songs: Path, tmp_path: Path) -> None:
    mel = "kind: mel, n_fft: 256, hop_length: 100, n_mels: 8, log: {top_db: null}"
    entries = f"features=[{{name: a, {mel}}}, {{name: b, {mel}, sample_rate_hz: 16000}}]"
    extract_here(songs, tmp_path / "set", *BASE, "chunk.edges=neighbours", entries)
    assert melmill.verify(tmp_path / "set").passed
    alone = f"features=[{{name: b, {mel}}}]"
    settings = (*BASE[1:], "audio.sample_rate_hz=16000", "chunk.edges=neighbours", alone)
    extract_here(songs, tmp_path / "alone", *settings)
    together = rows(tmp_path / "set")
    assert all(together[key]["b"] == row["b"] for key, row in rows(tmp_path / "alone").items())
    wrong = entries.replace("16000", "16001")
    with pytest.raises(ConfigError, match=r"features.1.sample_rate_hz: 16001: a rate at which"):
        extract_here(songs, tmp_path / "no", *BASE, "chunk.edges=neighbours", wrong)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, kind: waveform, sample_rate_hz: 10}", "features.0.sample_rate_hz: 10: "),
        ("{name: a, kind: waveform, sample_rate_hz: fast}", "features.0.sample_rate_hz: 'fast'"),
        (
            "{name: a, kind: mel, n_fft: 256, n_mels: 8, f_max_hz: 3000, sample_rate_hz: 5000}",
            "features.0.f_max_hz: 3000.0: at most 2500.0, half the sample rate",
        ),
        ("{preset: whisper-80, sample_rate_hz: 8000}", "features.0.sample_rate_hz: 8000: not all"),
        ("{name: a, kind: waveform, sample_rate: 8000}", "did you mean sample_rate_hz?"),
    ],
)
def test_a_wrong_rate_is_named(songs: Path, tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", *BASE, f"features=[{entry}]")
    assert message in str(raised.value)
