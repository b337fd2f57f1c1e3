"""Test that a chunk is measured like a recording of its own, whatever else is read."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.features.chunks import (
    ChunkSpec,
    chunk_start,
    count_chunks,
    resampled_length,
    valid_samples,
)
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.spans import SpanRows
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.measures.chunk_meters import to_numbers
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.measures.registry import CHUNK_MEASURES, MEASURES, chunk_measures
from melmill.transforms.measures.spans import extract_and_measure
from melmill.transforms.store.objects import StoredObject
from tests import signals

METERS = tuple(CHUNK_MEASURES)
WAVEFORM = Feature("waveform", WaveformSpec())
QUALITY = Feature("quality", MeasuresSpec(chunk_measures(METERS)))
SPEC = FeatureSpec(8000, chunk=ChunkSpec(8000, 8000), features=(WAVEFORM, QUALITY))


def extracted(
    path: Path,
    features: FeatureSpec,
    per_span: int,
    segment: tuple[int, int] | None = None,
    meters: tuple[str, ...] = (),
) -> list[SpanRows]:
    """Return the rows of a recording, or of a segment of it, that is divided into spans."""
    source = StoredObject(str(path))
    size_bytes, fingerprint = source.stat()
    recording = Recording("id", str(path), path.name, fingerprint, size_bytes)
    audio = probe_audio(source)
    whole = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    start, stop = segment or (0, whole)
    chunks = count_chunks(stop - start, features.chunk)
    rows = []
    for first in range(0, chunks, per_span):
        last = min(chunks, first + per_span)
        span = Span(ProbedRecording(recording, audio), start, stop - start, first, last)
        spool = path.with_suffix(".spool")
        rows += extract_and_measure([span], features, [source], spool, (), "", meters)[0]
    return rows


def readings(rows: list[SpanRows]) -> dict[str, np.ndarray]:
    """Return the readings of all rows by column."""
    return {
        name: np.concatenate([part.readings[name] for part in rows]) for name in rows[0].readings
    }


def alone(
    samples: np.ndarray, rate_hz: int, features: FeatureSpec, segment: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Return the readings of each chunk, measured on its own, from a whole recording's frames.

    A chunk has as many frames as its length in seconds, from the last one that is not after its
    start on, as far as the recording and its real samples reach.
    """
    spec, base = features.chunk, features.sample_rate_hz
    start, stop = segment or (0, resampled_length(len(samples), rate_hz, base))
    length = max(1, round(spec.length * rate_hz / base))
    measured = []
    for index in range(count_chunks(stop - start, spec)):
        first = start + chunk_start(index, stop - start, spec)
        end = first + valid_samples(index, stop - start, spec)
        own = samples[first * rate_hz // base : -(-end * rate_hz // base)][:length]
        measured.append(to_numbers(measure_samples(own, rate_hz, METERS), chunk_measures(METERS)))
    columns = MeasuresSpec(chunk_measures(METERS)).columns("quality")
    return dict(zip(columns, np.array(measured).T, strict=True))


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for name, values in expected.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate_hz=st.sampled_from([4000, 8000, 11_025, 22_050]),
    channels=st.integers(1, 3),
    frames=st.integers(1, 40_000),
    length=st.integers(500, 9_000),
    hop=st.integers(2000, 9_000),
    tail=st.sampled_from(["drop", "pad", "shift_back"]),
    per_span=st.integers(1, 9),
    format=st.sampled_from(["FLOAT", "PCM_16"]),
)
def test_however_the_work_is_divided_a_chunk_reads_what_it_reads_alone(
    rate_hz, channels, frames, length, hop, tail, per_span, format
):
    random = np.random.default_rng(frames)
    samples = np.clip(random.normal(0, 0.4, (frames, channels)), -0.9, 0.9)
    samples[random.integers(0, frames) :][: random.integers(1, 20_000)] = 0
    features = replace(SPEC, chunk=ChunkSpec(length, hop, tail=tail))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        soundfile.write(path, samples, rate_hz, format)
        decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
        assert_same(
            readings(extracted(path, features, per_span)), alone(decoded, rate_hz, features)
        )


@pytest.mark.parametrize("format", ["flac", "ogg", "mp3", "m4a"])
def test_in_every_format_a_span_reads_what_the_whole_recording_reads(tmp_path, format):
    path = signals.write_audio(
        tmp_path / f"song.{format}", signals.song(4.3, 44_100, channels=2), 44_100, format
    )
    whole = readings(extracted(path, SPEC, 9))
    assert_same(readings(extracted(path, SPEC, 1)), whole)
    assert len(whole["quality_level_peak"]) == 4
    assert (whole["quality_level_peak"] < 0).all()
    assert (whole["quality_origin_bandwidth"] > 5000).all()  # not that of the resampled samples


def test_the_chunks_of_a_segment_are_measured_from_its_start(tmp_path):
    samples = np.float32(signals.noise(4, 44_100))
    path = signals.write_audio(tmp_path / "noise.wav", samples, 44_100, "wav_float")
    segment = (4321, 28_000)
    actual = readings(extracted(path, SPEC, 1, segment))
    assert_same(actual, alone(samples[:, None], 44_100, SPEC, segment))


def test_measures_and_quality_are_read_in_one_pass_and_do_not_disturb_each_other(tmp_path):
    path = signals.write_audio(tmp_path / "song.wav", signals.song(3.5, 22_050), 22_050)
    expected = readings(extracted(path, SPEC, 9))
    assert_same(readings(extracted(path, SPEC, 2, meters=("level", "hum"))), expected)


def test_each_channel_is_a_row_and_all_rows_of_a_chunk_read_the_same(tmp_path):
    samples = np.stack([signals.tone(440, 2, 8000), np.zeros(16_000)], axis=1)
    samples[8000:, 1] = samples[8000:, 0]
    path = signals.write_audio(tmp_path / "dead.wav", samples, 8000)
    features = replace(SPEC, channels="each")
    (rows,) = extracted(path, features, 9)
    assert rows.readings["quality_channels_dead"].tolist() == [1, 1, 0, 0]
    assert np.isfinite(rows.peak_dbfs).tolist() == [True, False, True, True]


def test_measures_alone_need_no_spool(tmp_path):
    path = signals.write_audio(tmp_path / "song.wav", signals.song(2, 8000), 8000)
    only = replace(SPEC, features=(QUALITY,))
    assert_same(readings(extracted(path, only, 1)), readings(extracted(path, SPEC, 9)))


def test_two_features_may_share_meters(tmp_path):
    path = signals.write_audio(tmp_path / "song.wav", signals.song(2, 8000), 8000)
    level, peak = MeasuresSpec(("level.rms", "level.peak")), MeasuresSpec(("level.peak",))
    features = replace(SPEC, features=(Feature("a", level), Feature("b", peak)))
    actual = readings(extracted(path, features, 9))
    assert list(actual) == ["a_level_rms", "a_level_peak", "b_level_peak"]
    np.testing.assert_array_equal(actual["a_level_peak"], actual["b_level_peak"])


@pytest.mark.parametrize(
    ("samples", "numbers", "nulls"),
    [
        (
            np.zeros(8000),
            {"silence_share": 1, "clipping_runs": 0},
            {"level_rms", "spectrum_flatness"},
        ),
        (signals.tone(440, 1, 8000), {"silence_share": 0}, {"loudness_range", "channels_dead"}),
        (np.array([0.5]), {"clipping_share": 0, "clicks_count": 0}, {"activity_onset_rate"}),
    ],
    ids=["silence", "a second", "one sample"],
)
def test_what_is_not_defined_is_nan(tmp_path, samples, numbers, nulls):
    path = signals.write_audio(tmp_path / "short.wav", samples, 8000)
    actual = readings(extracted(path, SPEC, 1))
    assert {name: actual[f"quality_{name}"].tolist() for name in numbers} == {
        name: [value] for name, value in numbers.items()
    }
    assert all(np.isnan(actual[f"quality_{name}"]).all() for name in nulls)


def test_64_channels_are_measured(tmp_path):
    samples = np.float32(signals.noise(2.2, 8000, channels=64, amplitude=0.1))
    samples[:, 63] = 0
    path = tmp_path / "many.wav"
    soundfile.write(path, samples, 8000, "FLOAT")
    actual = readings(extracted(path, SPEC, 1))
    assert_same(actual, alone(samples, 8000, SPEC))
    assert actual["quality_channels_dead"].tolist() == [1, 1]


def test_a_sample_that_is_nan_fails_the_recording(tmp_path):
    samples = np.float32(signals.noise(2, 8000))
    samples[9000] = np.nan
    path = signals.write_audio(tmp_path / "nan.wav", samples, 8000, "wav_float")
    with pytest.raises(RecordingError, match="sample 9000") as caught:
        extracted(path, SPEC, 9)
    assert caught.value.cause is Cause.NON_FINITE


def test_samples_far_beyond_full_scale_give_finite_readings(tmp_path):
    samples = np.float32(signals.noise(1, 8000)) * np.float32(1e15)
    path = signals.write_audio(tmp_path / "huge.wav", samples, 8000, "wav_float")
    actual = readings(extracted(path, SPEC, 1))
    assert not np.isinf(np.concatenate(list(actual.values()))).any()


def test_only_numbers_that_mean_something_for_a_chunk_are_measures_of_chunks():
    names: list[Any] = [name for measures in CHUNK_MEASURES.values() for name in measures]
    assert len(names) == len(set(names))
    assert {MEASURES[name].type for name in names} == {"float", "int", "bool"}
    left_out = {"level.peak_second", "clipping.events", "cut.start", "hum.level", "acoustic.digest"}
    assert left_out.isdisjoint(names)
    assert all(CHUNK_MEASURES.values())
