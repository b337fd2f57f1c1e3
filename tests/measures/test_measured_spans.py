"""Test that a recording has the same readings however its chunks are divided into spans."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melmill.transforms.core.records import MeasuredPart, ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.features.chunks import ChunkSpec, count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.measures.blocks import Shape
from melmill.transforms.measures.measuring import (
    RecordingMeter,
    measure_recording,
    measure_samples,
)
from melmill.transforms.measures.registry import QUALITIES, by_group
from melmill.transforms.measures.spans import extract_and_measure, measure_spans
from melmill.transforms.measures.states import read_all, to_json
from melmill.transforms.store.objects import StoredObject
from tests import signals

FULL = QUALITIES["full"]
SPEC = FeatureSpec(
    8000, chunk=ChunkSpec(8000, 8000), features=(Feature("waveform", WaveformSpec()),)
)


def measured(
    path: Path, features: FeatureSpec, per_span: int, segment: tuple[int, int] | None = None
) -> dict:
    """Return the readings of a recording whose chunks are divided into spans."""
    source = StoredObject(str(path))
    size_bytes, fingerprint = source.stat()
    recording = Recording("id", str(path), path.name, fingerprint, size_bytes)
    audio = probe_audio(source)
    whole = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    start, stop = segment or (0, whole)
    chunks = count_chunks(stop - start, features.chunk)
    parts = []
    for first in range(0, chunks, per_span):
        last = min(chunks, first + per_span)
        span = Span(ProbedRecording(recording, audio), start, stop - start, first, last)
        spool = path.with_suffix(".spool")
        _, measured_parts = extract_and_measure([span], features, [source], spool, (), "", FULL)
        parts += measured_parts
    return read_all(parts[::-1])


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate_hz=st.sampled_from([8000, 11_025, 22_050]),
    channels=st.integers(1, 2),
    frames=st.integers(30_000, 200_000),
    hop=st.integers(3000, 20_000),
    tail=st.sampled_from(["drop", "pad", "shift_back"]),
    per_span=st.integers(1, 9),
    format=st.sampled_from(["FLOAT", "PCM_16"]),
)
def test_however_the_work_is_divided_readings_are_the_same(
    rate_hz, channels, frames, hop, tail, per_span, format
):
    random = np.random.default_rng(frames)
    samples = np.clip(random.normal(0, 0.4, (frames, channels)), -0.9, 0.9)
    samples[random.integers(0, frames) :][: random.integers(1, 40_000)] = 0
    features = replace(SPEC, chunk=ChunkSpec(8000, hop, tail=tail))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        soundfile.write(path, samples, rate_hz, format)
        _, whole = measure_recording(StoredObject(str(path)), FULL)
        assert measured(path, features, per_span) == by_group(whole)


@pytest.mark.parametrize("format", ["flac", "ogg", "mp3", "m4a"])
def test_in_every_format_spans_are_read_as_the_whole(tmp_path, format):
    song = signals.song(9.3, 44_100, channels=2)
    path = signals.write_audio(tmp_path / f"song.{format}", song, 44_100, format)
    _, whole = measure_recording(StoredObject(str(path)), FULL)
    assert measured(path, SPEC, 2) == by_group(whole)
    assert whole["level.peak"] < 0 < whole["origin.bandwidth"]


@pytest.mark.parametrize(
    ("format", "denormals"), [("wav_float", 900), ("wav_double", 900), ("wav", 0)]
)
def test_only_float_formats_have_denormal_samples(tmp_path, format, denormals):
    samples = signals.song(9, 8000)
    samples[3000:3900] = 1e-40
    path = signals.write_audio(tmp_path / "song.wav", samples, 8000, format)
    assert measured(path, SPEC, 2)["level"]["denormals"] == denormals


def test_what_no_chunk_holds_is_measured(tmp_path):
    samples = np.concatenate([signals.tone(440, 7, 8000), [0.99], np.zeros(100)])
    path = signals.write_audio(tmp_path / "tail.wav", samples, 8000)
    features = replace(SPEC, chunk=ChunkSpec(8000, 20_000))
    readings = measured(path, features, 1)
    assert readings["level"]["peak"] == pytest.approx(20 * np.log10(0.99), abs=0.001)
    assert readings["level"]["peak_second"] == 7.0


def test_a_segment_is_measured_like_a_recording_of_its_own(tmp_path):
    samples = signals.noise(9, 44_100)
    path = signals.write_audio(tmp_path / "noise.wav", samples, 44_100, "wav_float")
    # At 8 kHz the segment starts at 1.5 s and ends at 7.25 s.
    readings = measured(path, SPEC, 1, (12_000, 58_000))
    own = samples[round(1.5 * 44_100) : round(7.25 * 44_100)]
    assert readings == by_group(measure_samples(own, 44_100))


def test_a_recording_of_which_a_part_is_missing_is_not_measured():
    samples = signals.noise(9, 8000).reshape(-1, 1)
    shape, length = Shape(8000, 1), len(samples)
    border = shape.block_frames
    parts = []
    for start, stop in ((0, border), (border, 2 * border), (2 * border, length)):
        meter = RecordingMeter(("level",), shape, start, stop, length)
        meter.add(samples[max(0, start - shape.around_frames) : stop + shape.around_frames])
        parts.append(MeasuredPart("id", start, stop, length, to_json(meter.meters)))
    assert read_all(parts) == by_group(measure_samples(samples, 8000, ("level",)))
    for number in range(3):
        assert read_all(parts[:number] + parts[number + 1 :]) is None
    assert read_all([]) is None
    with pytest.raises(RuntimeError, match="was measured twice at frame 0"):
        read_all([*parts, parts[0]])


@pytest.mark.parametrize("quality", ["basic", "full"])
def test_what_one_span_measures_are_small_readings(tmp_path, quality):
    path = signals.write_audio(tmp_path / "song.wav", signals.song(20, 44_100, channels=2), 44_100)
    source, audio = StoredObject(str(path)), probe_audio(StoredObject(str(path)))
    recording = Recording("id", str(path), path.name, *reversed(source.stat()))
    span = Span(ProbedRecording(recording, audio), 0, 160_000, 0, 20)
    (part,) = measure_spans([span], [source], SPEC, QUALITIES[quality])
    assert part.is_whole
    assert len(part.text) < 4000
    assert read_all([part]) == by_group(measure_recording(source, QUALITIES[quality])[1])


def test_a_recording_that_is_known_is_not_measured_again(tmp_path):
    path = signals.write_audio(tmp_path / "noise.wav", signals.noise(3, 8000), 8000)
    source, audio = StoredObject(str(path)), probe_audio(StoredObject(str(path)))
    recording = Recording("id", str(path), path.name, *reversed(source.stat()), measures="{}")
    span = Span(ProbedRecording(recording, audio), 0, 24_000, 0, 3)
    more = [span], SPEC, [source], tmp_path / "spool", (), "", FULL
    rows, parts = extract_and_measure(*more)
    assert (len(rows[0].chunk_index), parts) == (3, [])
