"""Tests that spans give the features of the recording decoded, resampled and cut as a whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause, DatasetError, RecordingError
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.features import decoded_spans, resample
from melmill.transforms.features.channels import select_channels
from melmill.transforms.features.chunks import (
    ChunkSpec,
    chunk_start,
    count_chunks,
    resampled_length,
)
from melmill.transforms.features.decoded_spans import Span, read_chunks, read_samples
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.resample import drifts
from melmill.transforms.features.spans import extract_spans, measure_levels
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.damage import with_serial, with_xing
from tests.mel_features import mel_features, with_mel

#: Full scale is 1. soxr sums the same products in different orders in a block and in the whole
#: recording. The measured difference is at most 4.8e-7 over 150 random rate pairs. Where soxr's
#: position drifts, the measured difference is 5.2e-4 after 2,000,000 samples.
WHOLE_TOLERANCE, DRIFT_TOLERANCE = 1e-6, 1e-4

LEVELS = ("peak_dbfs", "rms_dbfs")

SPEC = mel_features(
    MelSpec(n_fft=512, hop_length=160, n_mels=40, log=LogSpec(kind="none", top_db=None)),
    sample_rate_hz=16_000,
    chunk=ChunkSpec(8_000, 8_000, tail="pad"),
)


def span_of(path: Path, features: FeatureSpec = SPEC) -> tuple[Span, StoredObject]:
    """Return the span of the whole recording, and the recording's stored object."""
    source = StoredObject(str(path))
    size_bytes, fingerprint = source.stat()
    recording = Recording("id", str(path), path.name, fingerprint, size_bytes)
    audio = probe_audio(source)
    samples = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    chunks = count_chunks(samples, features.chunk)
    return Span(ProbedRecording(recording, audio), 0, samples, 0, chunks), source


def whole_at_target_rate(source: StoredObject, span: Span, features: FeatureSpec) -> np.ndarray:
    """Return [samples, channels], decoded in one pass and resampled in one call."""
    audio = span.probed.audio
    with open_audio(source, audio) as reader:
        blocks = list(reader.blocks(0, audio.frames, audio.frames))
    mixed = select_channels(np.concatenate(blocks), features.channels)
    if audio.sample_rate_hz == features.sample_rate_hz:
        return mixed
    rates = audio.sample_rate_hz, features.sample_rate_hz
    resampled = soxr.resample(mixed, *rates, quality=features.resampler)
    return librosa.util.fix_length(resampled, size=span.samples, axis=0)


def chunks_of(
    span: Span, features: FeatureSpec, source: StoredObject
) -> Iterator[tuple[int, np.ndarray]]:
    for ((place, chunk),) in read_chunks(span, features, source):
        yield place.index, chunk


def assert_spans_equal_the_whole(path: Path, features: FeatureSpec, per_span: int) -> None:
    """Assert that spans give the bits of one long span, and nearly soxr's bits of the whole."""
    span, source = span_of(path, features)
    whole = whole_at_target_rate(source, span, features)
    rates = span.probed.audio.sample_rate_hz, features.sample_rate_hz
    tolerance = DRIFT_TOLERANCE if drifts(*rates) else WHOLE_TOLERANCE
    whole_chunks = dict(chunks_of(span, features, source)) if span.chunks else {}
    chunk_count, per_span = 0, max(per_span, span.stop_chunk // 10)
    for first in range(0, span.stop_chunk, per_span):
        stop = min(span.stop_chunk, first + per_span)
        part = replace(span, first_chunk=first, stop_chunk=stop)
        for index, chunk in chunks_of(part, features, source):
            assert np.array_equal(chunk, whole_chunks[index])
            start = chunk_start(index, span.samples, features.chunk)
            expected = whole[start : start + features.chunk.length]
            np.testing.assert_allclose(chunk[: len(expected)], expected, rtol=0, atol=tolerance)
            assert not chunk[len(expected) :].any()
            chunk_count += 1
    assert chunk_count == count_chunks(span.samples, features.chunk)


@contextmanager
def short_blocks() -> Iterator[None]:
    """Make the blocks so short that a small recording has many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "BLOCK_SAMPLES", 1 << 15)
        yield


RATES = st.one_of(
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]),
    st.integers(8_000, 192_000),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate=RATES,
    target=RATES,
    frames=st.integers(1, 300_000),
    length=st.integers(100, 60_000),
    hop_share=st.floats(0.3, 2.0),
    per_span=st.integers(1, 5),
    tail=st.sampled_from(["drop", "pad", "shift_back"]),
    quality=st.sampled_from(["soxr_hq", "soxr_vhq"]),
)
def test_however_the_work_is_divided_chunks_are_those_of_the_whole_recording(
    rate, target, frames, length, hop_share, per_span, tail, quality
):
    chunk = ChunkSpec(length, max(1, round(length * hop_share)), tail=tail)
    features = replace(SPEC, sample_rate_hz=target, chunk=chunk, resampler=quality)
    samples = np.random.default_rng(frames).uniform(-0.5, 0.5, frames).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, short_blocks():
        path = Path(folder) / "noise.wav"
        soundfile.write(path, samples, rate, "FLOAT")
        assert_spans_equal_the_whole(path, features, per_span)


@pytest.mark.parametrize("format", signals.FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_in_every_format_spans_equal_the_whole(tmp_path, format, channels):
    path = tmp_path / f"song.{format}"
    signals.write_audio(path, signals.song(6.3, 48_000, channels=channels), 48_000, format)
    assert_spans_equal_the_whole(path, SPEC, 2)


def test_a_rate_that_soxr_drifts_at_is_the_same_bits_too(tmp_path):
    path = signals.write_audio(tmp_path / "odd.wav", signals.noise(30, 44_100), 44_100)
    features = replace(SPEC, sample_rate_hz=44_099, chunk=ChunkSpec(44_099, 44_099))
    assert_spans_equal_the_whole(path, features, 7)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate=RATES,
    frames=st.integers(20_000, 300_000),
    channels=st.integers(1, 6),
    policy=st.sampled_from(["mono", "left", "each"]),
    hop=st.integers(2_000, 20_000),
    tail=st.sampled_from(["drop", "pad", "shift_back"]),
    power=st.sampled_from([1, 2]),
    per_span=st.integers(1, 40),
)
def test_however_the_work_is_divided_rows_are_the_same_bits(
    rate, frames, channels, policy, hop, tail, power, per_span
):
    features = replace(
        with_mel(SPEC, power=power, log=LogSpec()),
        channels=policy,
        chunk=ChunkSpec(8_000, hop, tail=tail),
    )
    samples = np.random.default_rng(frames).uniform(-0.5, 0.5, (frames, channels))
    with tempfile.TemporaryDirectory() as name, short_blocks():
        folder = Path(name)
        soundfile.write(folder / "noise.wav", samples.astype(np.float32), rate, "FLOAT")
        whole, [whole_rows] = rows_of(folder / "noise.wav", features, folder, per_span=10_000)
        parts, rows = rows_of(folder / "noise.wav", features, folder, per_span)
    assert np.array_equal(parts, whole)
    for column in ("chunk_index", "channel", "start_sample", "valid_samples", *LEVELS):
        values = np.concatenate([getattr(part, column) for part in rows])
        assert np.array_equal(values, getattr(whole_rows, column))


@pytest.mark.parametrize("power", [1, 2])
def test_features_equal_librosa_on_the_whole_file(tmp_path, power):
    path = signals.write_audio(tmp_path / "song.flac", signals.song(7, 44_100, channels=2), 44_100)
    features = with_mel(SPEC, power=power)
    mel, _ = rows_of(path, features, tmp_path, per_span=3)
    y, _ = librosa.load(path, sr=16_000, mono=True)
    assert len(mel) == -(-len(y) // 8_000)
    for index, chunk_mel in enumerate(mel):
        chunk = librosa.util.fix_length(y[index * 8_000 : (index + 1) * 8_000], size=8_000)
        expected = librosa.feature.melspectrogram(
            y=chunk, sr=16_000, n_fft=512, hop_length=160, n_mels=40, power=power
        )
        # The tolerance is 1e-4 of each value. Values below float32's resolution at the loudest
        # value are only rounding errors.
        np.testing.assert_allclose(chunk_mel, expected, rtol=1e-4, atol=1e-6 * expected.max())


def rows_of(path: Path, features: FeatureSpec, folder: Path, per_span: int):
    span, source = span_of(path, features)
    spool, mels, rows = folder / "spool", [], []
    for first in range(0, span.stop_chunk, per_span):
        part = replace(span, first_chunk=first, stop_chunk=min(span.stop_chunk, first + per_span))
        rows += extract_spans([part], features, [source], spool)
        mels.append(np.fromfile(spool, np.float32).reshape(-1, *features.columns[0].shape))
    return np.concatenate(mels), rows


def test_each_channel_becomes_a_row_of_its_own(tmp_path):
    stereo = np.stack([signals.tone(440, 2, 16_000), signals.tone(880, 2, 16_000)], axis=1)
    path = signals.write_audio(tmp_path / "two.wav", stereo, 16_000, "wav_float")
    mel, [rows] = rows_of(path, replace(SPEC, channels="each"), tmp_path, per_span=9)
    assert rows.chunk_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert rows.channel.tolist() == [0, 1] * 4
    left = extract_features(stereo[:8_000, 0][None].copy(), [8_000], SPEC)["mel"][0]
    np.testing.assert_array_equal(mel[0], left)


def test_a_segment_starts_where_it_is_asked_to(tmp_path):
    samples = signals.noise(3, 16_000)
    path = signals.write_audio(tmp_path / "noise.flac", samples, 16_000)
    span, source = span_of(path)
    segment = replace(span, origin_sample=12_345, samples=8_000, first_chunk=0, stop_chunk=1)
    [(_, chunk)] = chunks_of(segment, SPEC, source)
    # FLAC stores 16 bits per sample.
    np.testing.assert_allclose(chunk[:, 0], samples[12_345 : 12_345 + 8_000], atol=2**-15)
    (rows,) = extract_spans([segment], SPEC, [source], tmp_path / "spool")
    assert rows.start_sample.tolist() == [12_345]


def test_rows_say_how_many_of_their_samples_are_real(tmp_path):
    path = signals.write_audio(tmp_path / "short.wav", signals.tone(440, 1.25, 16_000), 16_000)
    _, [rows] = rows_of(path, SPEC, tmp_path, per_span=9)
    assert rows.valid_samples.tolist() == [8_000, 8_000, 4_000]


def test_levels_are_those_of_a_full_scale_sine():
    peak, rms = measure_levels(signals.tone(1_000, 1, 16_000, amplitude=1.0)[None])
    assert peak[0] == pytest.approx(0, abs=1e-4)
    assert rms[0] == pytest.approx(-3.0103, abs=1e-3)


@pytest.mark.parametrize("samples", [7, 100, 66_150])
def test_levels_do_not_depend_on_a_rows_place_in_its_batch(samples):
    rows = signals.noise(1, 50 * samples).reshape(50, samples)
    all_levels = measure_levels(rows)
    for size in (1, 2, 3, 49):
        for first in range(0, 50 - size, 7):
            levels = measure_levels(rows[first : first + size])
            assert np.array_equal(levels, all_levels[:, first : first + size])


def test_a_file_that_changed_since_the_probe_is_refused(tmp_path):
    path = signals.write_audio(tmp_path / "song.wav", signals.tone(440, 2, 16_000), 16_000)
    span, source = span_of(path)
    signals.write_audio(path, signals.tone(880, 2, 16_000), 16_000)
    recording = replace(span.probed.recording, fingerprint="mtime:1:2")
    stale = replace(span, probed=replace(span.probed, recording=recording))
    with pytest.raises(RecordingError) as raised:
        extract_spans([stale], SPEC, [source], tmp_path / "spool")
    assert raised.value.cause is Cause.CHANGED


def test_working_files_that_cannot_be_written_are_named(tmp_path):
    span, source = span_of(
        signals.write_audio(tmp_path / "a.wav", signals.noise(9, 16_000), 16_000)
    )
    with pytest.raises(DatasetError, match=r"cannot write working files in /dev: .*No space left"):
        extract_spans([span], SPEC, [source], Path("/dev/full"))
    with pytest.raises(DatasetError, match=r"cannot write working files in .*none"):
        extract_spans([span], SPEC, [source], tmp_path / "none" / "spool")


def test_an_error_of_a_decoder_is_not_reported_as_one_of_working_files(tmp_path, monkeypatch):
    span, source = span_of(
        signals.write_audio(tmp_path / "a.wav", signals.noise(9, 16_000), 16_000)
    )

    def broken(*arguments):
        raise OSError(5, "of the decoder")
        yield

    monkeypatch.setattr("melmill.transforms.features.spans.read_chunks", broken)
    with pytest.raises(OSError, match="of the decoder"):
        extract_spans([span], SPEC, [source], tmp_path / "spool")


@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_a_length_that_only_the_end_disproves_is_noticed_by_the_last_span(tmp_path, tail):
    path = tmp_path / "a.mp3"
    data = signals.encode(signals.song(7, 44_100), 44_100, "mp3_vbr")
    path.write_bytes(with_xing(data, frames=150))
    features = replace(SPEC, chunk=replace(SPEC.chunk, tail=tail))
    span, source = span_of(path, features)
    first = replace(span, stop_chunk=2)
    (rows,) = extract_spans([first], features, [source], tmp_path / "spool")
    assert len(rows.chunk_index) == 2
    with pytest.raises(RecordingError) as raised:
        extract_spans([replace(span, first_chunk=2)], features, [source], tmp_path / "spool")
    assert (raised.value.cause, raised.value.frames) == (Cause.LENGTH_MISMATCH, 7 * 44_100)


@pytest.mark.parametrize("block_samples", [7, 1 << 17])
@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("name", ["mp3_vbr", "opus", "ogg"])
def test_whoever_reads_the_last_frame_learns_that_more_follows(
    tmp_path, monkeypatch, name, resampled, block_samples
):
    """No more blocks are requested once the last requested sample has been read."""
    monkeypatch.setattr(decoded_spans, "_BLOCK_SAMPLES", block_samples)
    rate = 48_000 if name == "opus" else 44_100
    parts = [signals.encode(signals.song(s, rate), rate, name) for s in (4, 2)]
    if name == "mp3_vbr":
        data = with_xing(parts[0], frames=75)
    else:
        data = with_serial(parts[0], 7) + with_serial(parts[1], 7)
    (tmp_path / "long").write_bytes(data)
    source = StoredObject(str(tmp_path / "long"))
    audio = probe_audio(source)
    features = replace(SPEC, sample_rate_hz=16_000 if resampled else rate)
    stop = resampled_length(audio.frames, rate, features.sample_rate_hz)
    for start in (0, stop - 100):
        with pytest.raises(RecordingError) as raised:
            list(read_samples(audio, features, source, start, stop))
        assert raised.value.cause == Cause.LENGTH_MISMATCH
