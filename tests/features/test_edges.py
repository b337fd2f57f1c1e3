"""With neighbours as edges, chunks laid end to end are the spectrogram of the whole recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import melmill
from melmill.pipelines.config import load_config, shipped_recipes
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.chunks import (
    ChunkSpec,
    Surroundings,
    chunk_start,
    count_chunks,
    cut_chunks,
    pad_chunk,
    place_chunk,
    valid_samples,
)
from melmill.transforms.features.decoded_spans import read_chunks
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.spans import extract_spans
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.folders import Store
from tests.features.test_spans import rows_of, short_blocks, span_of
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.signals import noise, song, write_audio

RATE = 16_000
EDGES = ("chunk.edges=neighbours", f"audio.sample_rate_hz={RATE}", "chunk.seconds=0.5")
BARE = "log: {kind: ln, floor: 1e-5, top_db: null}"
ENTRIES = {
    "centred": f"{{name: f, kind: mel, n_fft: 512, hop_length: 160, n_mels: 40, {BARE}}}",
    "mirrored": "{name: f, kind: mel, n_fft: 400, hop_length: 100, n_mels: 20, "
    f"pad_mode: reflect, {BARE}}}",
    "left": "{name: f, kind: mel, n_fft: 512, hop_length: 160, center: false, n_mels: 40, "
    f"{BARE}}}",
    "padded": "{name: f, kind: mel, n_fft: 1024, hop_length: 250, center: false, pad_samples: 387, "
    f"pad_mode: reflect, n_mels: 40, {BARE}}}",
    "long": f"{{name: f, kind: mel, n_fft: 9000, hop_length: 4000, n_mels: 30, {BARE}}}",
    "stacked": f"{{name: f, kind: mel, n_fft: 512, hop_length: 160, stack_frames: 5, n_mels: 8, "
    f"{BARE}}}",
    "spectrum": "{name: f, kind: stft, n_fft: 512, hop_length: 125}",
    "mfcc": f"{{name: f, kind: mfcc, n_fft: 512, hop_length: 160, n_mels: 40, {BARE}}}",
    "kaldi": "{preset: kaldi-fbank-23, name: f}",
    "lhotse": "{preset: kaldi-fbank-80, name: f}",
    "energy": "{preset: kaldi-mfcc-13, name: f}",
}


def recipe(entry: str, *settings: str) -> FeatureSpec:
    return load_config(None, [*EDGES, f"features=[{entry}]", *settings]).feature_spec()


def whole_as_one_chunk(samples: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    chunk = ChunkSpec(len(samples), len(samples))
    whole = replace(spec, chunk=chunk)
    return extract_features(samples[None], [len(samples)], whole)["f"][0]


def sound(path: Path, seconds: float, rate: int = RATE, seed: int = 0) -> Path:
    samples = song(seconds, rate, seed) + noise(seconds, rate, seed, amplitude=0.02)
    return write_audio(path, np.float32(samples), rate, "wav_float")


@pytest.mark.parametrize("name", ENTRIES)
def test_chunks_laid_end_to_end_are_the_whole(tmp_path: Path, name: str) -> None:
    spec = recipe(ENTRIES[name])
    path = sound(tmp_path / "a.wav", 3.2)
    values, _ = rows_of(path, spec, tmp_path, per_span=9)
    assert len(values) == 6
    samples, _ = librosa.load(path, sr=RATE)
    whole = whole_as_one_chunk(samples, spec)
    together = np.concatenate(list(values), axis=1)
    # 0.2 s of the recording follow on the last chunk, so that all its frames are whole.
    assert together.shape[1] == 6 * spec.columns[0].shape[1]
    # The same transforms of the same samples; sums over bands may differ in their last bits.
    np.testing.assert_allclose(together, whole[:, : together.shape[1]], rtol=1e-4, atol=1e-3)


def test_the_whole_is_what_librosa_computes(tmp_path: Path) -> None:
    spec = recipe(ENTRIES["centred"])
    path = sound(tmp_path / "a.wav", 2.0)
    values, _ = rows_of(path, spec, tmp_path, per_span=2)
    samples, _ = librosa.load(path, sr=RATE, dtype=np.float64)
    mel = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=512, hop_length=160, n_mels=40)
    expected = np.log(np.maximum(mel, 1e-5))
    together = np.concatenate(list(values), axis=1)
    # librosa has one frame more, which is centred on the recording's end.
    assert expected.shape[1] == together.shape[1] + 1
    np.testing.assert_allclose(together, expected[:, :-1], atol=1e-3)
    # Chunks that are padded at their edges differ there.
    padded = recipe(ENTRIES["centred"], "chunk.edges=pad")
    alone, _ = rows_of(path, padded, tmp_path, per_span=2)
    assert np.abs(alone[1][:, 0] - together[:, 50]).max() > 0.1


@pytest.mark.parametrize("name", ["centred", "long", "lhotse", "spectrum"])
@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_however_the_work_is_divided_rows_have_the_same_bits(
    tmp_path: Path, name: str, rate: int, tail: str
) -> None:
    spec = recipe(ENTRIES[name], f"chunk.tail={tail}")
    path = sound(tmp_path / "a.wav", 3.3, rate)
    with short_blocks():
        whole, _ = rows_of(path, spec, tmp_path, per_span=9)
        for per_span in (1, 2, 3):
            parts, _ = rows_of(path, spec, tmp_path, per_span)
            np.testing.assert_array_equal(parts, whole)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    samples=st.integers(1, 500),
    length=st.integers(1, 90),
    hop=st.integers(1, 120),
    before=st.integers(0, 200),
    after=st.integers(0, 200),
    tail=st.sampled_from(["drop", "pad"]),
    block=st.integers(1, 70),
    data=st.data(),
)
def test_a_chunk_comes_with_exactly_the_samples_around_it(
    samples: int,
    length: int,
    hop: int,
    before: int,
    after: int,
    tail: Any,
    block: int,
    data: st.DataObject,
) -> None:
    spec = ChunkSpec(length, hop, tail, "pad", 9.0, "neighbours")
    number = count_chunks(samples, spec)
    if not number:
        return
    first = data.draw(st.integers(0, number - 1))
    stop = data.draw(st.integers(first + 1, number))
    recording = np.arange(samples, dtype=np.float32)[:, None]

    def around(index: int) -> Surroundings:
        start = chunk_start(index, samples, spec)
        valid = valid_samples(index, samples, spec)
        return Surroundings(before, after).around(start, valid, samples, length)

    begin = chunk_start(first, samples, spec) - around(first).before
    blocks = (recording[i : i + block] for i in range(begin, samples, block))
    seen = []
    places = [
        replace(place_chunk(index, samples, spec), around=around(index))
        for index in range(first, stop)
    ]
    for place, window in cut_chunks(blocks, places, spec):
        index = place.index
        start, valid = chunk_start(index, samples, spec), valid_samples(index, samples, spec)
        chunk = pad_chunk(recording[start : start + valid], spec)
        left = recording[max(0, start - before) : start]
        right = recording[start + length : start + length + after] if valid == length else chunk[:0]
        np.testing.assert_array_equal(window, np.concatenate([left, chunk, right]))
        seen.append(index)
    assert seen == list(range(first, stop))


def test_segments_see_the_recording_around_them(tmp_path: Path) -> None:
    spec = recipe(ENTRIES["centred"])
    path = sound(tmp_path / "a.wav", 3.0)
    span, source = span_of(path, spec)
    segment = replace(span, origin_sample=8_000, samples=16_000, first_chunk=0, stop_chunk=2)
    extract_spans([segment], spec, [source], tmp_path / "spool")
    values = np.fromfile(tmp_path / "spool", np.float32).reshape(2, *spec.columns[0].shape)
    whole, _ = rows_of(path, spec, tmp_path, per_span=9)
    np.testing.assert_array_equal(values, whole[1:3])


def test_levels_are_those_of_the_chunk_alone(tmp_path: Path) -> None:
    samples = np.zeros(24_000, np.float32)
    samples[8_000:16_000] = 0.5
    path = write_audio(tmp_path / "a.wav", samples, RATE, "wav_float")
    span, source = span_of(path, recipe(ENTRIES["long"]))
    (rows,) = extract_spans([span], recipe(ENTRIES["long"]), [source], tmp_path / "spool")
    assert np.isneginf(rows.peak_dbfs).tolist() == [True, False, True]
    # Frames of 9,000 samples for every 4,000: 4,500 before a chunk, and 500 after it.
    chunks = read_chunks(span, recipe(ENTRIES["long"]), source)
    windows = [len(window) for ((_, window),) in chunks]
    assert windows == [8_500, 13_000, 12_500]


def test_a_dataset_is_extracted_verified_refreshed_and_opened(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    for number, rate in enumerate((RATE, 44_100, 8_000)):
        sound(tmp_path / f"songs/{number}.wav", 2.2 + number, rate, number)
    mel = ENTRIES["centred"]
    entries = f"features=[{mel}, {{name: samples, kind: waveform}}, {{preset: kaldi-fbank-23}}]"
    settings = (*EDGES, entries, "chunk.tail=pad")
    extract_here(tmp_path / "songs", tmp_path / "set", *settings)
    opened = melmill.open(tmp_path / "set")
    assert {name: column.shape for name, column in opened.features.items()} == {
        "f": (40, 50),
        "samples": (8_000,),
        "kaldi_fbank_23": (23, 50),
    }
    report = melmill_json("verify", tmp_path / "set")
    assert report["passed"]
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []
    assert not refresh_here(tmp_path / "songs", tmp_path / "set").committed
    loaded = melmill.load(tmp_path / "songs/1.wav", load_config(None, settings))
    table = opened.as_arrow().to_table().to_pylist()
    rows = {row["chunk_index"]: row for row in table if row["uri"].endswith("1.wav")}
    for name in ("f", "samples", "kaldi_fbank_23"):
        for index, values in enumerate(loaded.features(name)):
            np.testing.assert_array_equal(np.float32(rows[index][name]), values)
    other = refresh_here(tmp_path / "songs", tmp_path / "set", "chunk.edges=pad", "chunk.tail=pad")
    assert (other.new_schema, other.difference["recomputed"]) == (True, 3)


#: Presets whose features are not those of a part of a longer spectrogram.
REFUSED = {
    *("ast", "parakeet", "seamless", "speech2text", "wespeaker", "whisper-80", "whisper-128"),
    *("librosa", "musicnn", "waveform-wav2vec2"),
}


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_preset_allows_neighbours_or_says_why_not(name: str) -> None:
    rate = load_config(name).audio.sample_rate_hz
    spec = load_config(name).feature_spec().features[0].spec
    hop = getattr(spec, "hop_length", 100)
    seconds = f"chunk.seconds={hop * 60 / rate!r}"
    overrides = ["chunk.edges=neighbours", seconds, "chunk.hop_seconds=null"]
    if name not in REFUSED:
        assert load_config(name, overrides).feature_spec().chunk.edges == "neighbours"
        return
    with pytest.raises(ConfigError, match=r"where chunk\.edges is neighbours"):
        load_config(name, overrides)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["chunk.seconds=0.513"], "features.0.hop_length: 160: a divisor of the chunk, 8208 samp"),
        (["chunk.hop_seconds=0.335"], "features.0.hop_length: 160: a divisor of the hop of the"),
        (["chunk.tail=shift_back"], "chunk.tail: 'shift_back': drop or pad where chunk.edges"),
        (["chunk.short=repeat"], "chunk.short: 'repeat': drop or pad where chunk.edges"),
        (["features=[{name: p, kind: pcen, hop_length: 160}]"], "features.0.kind: 'pcen': another"),
        (["features=[{name: w, kind: waveform, level: peak}]"], "features.0.level: 'peak': none"),
        (
            ["features=[{name: f, kind: mel, hop_length: 160, n_mels: 40, stack_frames: 7}]"],
            "features.0.log.top_db: 80.0: null where chunk.edges is neighbours: the range is that",
        ),
    ],
)
def test_what_contradicts_neighbours_is_named_with_the_reason(
    settings: list[str], fault: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [*EDGES, f"features=[{ENTRIES['centred']}]", *settings])
    assert fault in str(raised.value)
