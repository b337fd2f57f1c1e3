"""Pictures are drawn block by block; they equal what NumPy computes from the whole decode."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.pipelines.sound.pictures import (
    Picture,
    PicturePart,
    PictureSpec,
    draw_parts_of,
    draw_picture,
)
from melmill.pipelines.sound.spectrogram import Bands, window_frames
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.store.objects import StoredObject
from tests.recordings import decode_all
from tests.signals import encode, noise, song, tone, write_audio

RATE = 44_100


def stored(folder: Path, samples: np.ndarray, format: str, rate: int = RATE) -> StoredObject:
    return StoredObject(str(write_audio(folder / f"a.{format}", samples, rate, format)))


def draw(source: StoredObject, *, columns: int = 100, start: int = 0, stop: int = 0, **options):
    audio = probe_audio(source)
    spec = PictureSpec(start, stop or audio.frames, columns, **options)
    with open_audio(source, audio, must_be_finite=False) as reader:
        *_, picture = draw_picture(reader, spec)
    return picture


def envelope_of(samples: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns = [samples[first:stop] for first, stop in pairwise(borders)]
    minima = [column.min(axis=0) for column in columns]
    return np.array(minima).T, np.array([column.max(axis=0) for column in columns]).T


@pytest.fixture(scope="module", params=["wav", "flac", "mp3", "ogg", "m4a"])
def recording(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StoredObject, AudioInfo, np.ndarray]:
    samples = song(3.7, RATE, seed=5, channels=2)
    source = stored(tmp_path_factory.mktemp(request.param), samples, request.param)
    return source, probe_audio(source), decode_all(source)


@settings(max_examples=15)
@given(data=st.data())
def test_the_envelope_equals_that_of_the_whole_decode(recording, data: st.DataObject) -> None:
    source, audio, samples = recording
    start = data.draw(st.integers(0, audio.frames - 1))
    stop = data.draw(st.integers(start + 1, audio.frames))
    spec = PictureSpec(start, stop, data.draw(st.integers(1, min(300, stop - start))), None)
    with open_audio(source, audio) as reader:
        *_, picture = draw_picture(reader, spec)
    minima, maxima = envelope_of(samples, spec.borders)
    assert np.array_equal(picture.whole("minima"), minima)
    assert np.array_equal(picture.whole("maxima"), maxima)


def reference_levels(samples: np.ndarray, spec: PictureSpec, rate: int) -> np.ndarray:
    """Compute the spectrogram by its formula, one window after the other."""
    size = window_frames(rate)
    window = np.hanning(size + 1)[:-1]
    padded = np.pad(samples.astype(np.float64), ((size, size), (0, 0)))
    gains = np.full(size // 2 + 1, 2 / window.sum())
    gains[[0, -1]] /= 2
    edges = spec.bands.edges_hz(rate) * size / rate
    bins = np.arange(size // 2 + 1)
    columns = []
    for first, stop in pairwise(spec.borders):
        count = min(-(-(stop - first) // (size // 2)), 96)
        centres = [first + (2 * i + 1) * (stop - first) // (2 * count) for i in range(count)]
        cut = np.stack([padded[c + size // 2 : c + size // 2 + size] for c in centres])
        power = np.abs(np.fft.rfft(cut * window[:, None], axis=1) * gains[:, None]) ** 2
        power = power.mean(axis=(0, 2))
        centre = np.rint(spec.bands.centres_hz(rate) * size / rate).astype(int)
        column = []
        for band in range(spec.bands.count):
            upper = np.inf if band == spec.bands.count - 1 else edges[band + 1]
            inside = power[(bins >= edges[band]) & (bins < upper)]
            column.append(inside.max() if len(inside) else power[centre[band]])
        columns.append(column)
    return 10 * np.log10(np.array(columns).T)


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize(("start", "stop", "columns"), [(0, 0, 90), (30_001, 31_000, 333)])
def test_levels_follow_their_formula(
    tmp_path: Path, scale: str, start: int, stop: int, columns: int
) -> None:
    samples = noise(2.0, RATE, seed=3, channels=2)
    source = stored(tmp_path, samples, "wav_float")
    picture = draw(source, start=start, stop=stop, columns=columns, bands=Bands(40, scale))
    expected = reference_levels(samples, picture.spec, RATE)
    assert np.abs(picture.whole("levels_dbfs") - expected).max() < 0.01


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_a_full_scale_sine_reads_0_db_at_its_frequency(tmp_path: Path, rate: int) -> None:
    frequency = 50 * rate / window_frames(rate)  # the centre of a bin
    source = stored(tmp_path, tone(frequency, 1.0, rate, amplitude=1.0), "wav_float", rate)
    picture = draw(source, columns=10)
    levels = picture.whole("levels_dbfs")[:, 5]
    assert levels.max() == pytest.approx(0, abs=1e-3)
    assert picture.centres_hz[levels.argmax()] == pytest.approx(frequency, rel=0.04)


def test_between_two_bins_a_sine_reads_at_most_1_5_db_less(tmp_path: Path) -> None:
    frequency = 50.5 * RATE / window_frames(RATE)
    source = stored(tmp_path, tone(frequency, 1.0, RATE, amplitude=1.0), "wav_float")
    assert -1.5 < draw(source, columns=10).whole("levels_dbfs")[:, 5].max() < -1.3


def test_the_spectrogram_of_one_channel_has_only_its_sound(tmp_path: Path) -> None:
    samples = np.stack([tone(1_000, 1.0, RATE), np.zeros(RATE, np.float32)], axis=1)
    source = stored(tmp_path, samples, "wav_float")
    assert draw(source, channel=0).whole("levels_dbfs").max() == pytest.approx(-6.02, abs=1.5)
    assert draw(source, channel=1).whole("levels_dbfs").max() == -np.inf


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_loudest_column_has_the_loudness_that_the_meter_reads(
    tmp_path: Path, channels: int
) -> None:
    samples = song(12.3, RATE, seed=2, channels=channels).reshape(-1, channels)
    readings = measure_samples(samples, RATE, ("loudness",))
    picture = draw(stored(tmp_path, samples, "wav_float"), columns=50)
    momentary, short_term = picture.whole("momentary_lufs"), picture.whole("short_term_lufs")
    assert np.nanmax(momentary) == np.float32(readings["loudness.momentary_max"])
    assert np.nanmax(short_term) == np.float32(readings["loudness.short_term_max"])


def test_a_part_has_the_loudness_of_the_whole(tmp_path: Path) -> None:
    source = stored(tmp_path, song(20.0, RATE, seed=2, channels=2), "flac")
    whole = draw(source, columns=200)  # of a tenth of a second
    part = draw(source, start=10 * RATE, stop=15 * RATE, columns=50)
    for name in ("momentary_lufs", "short_term_lufs"):
        assert np.array_equal(part.whole(name), whole.whole(name)[100:150])
        assert np.isfinite(part.whole(name)).all()


def test_silence_has_no_level_and_low_rates_have_no_loudness(tmp_path: Path) -> None:
    silent = draw(stored(tmp_path, np.zeros(8_000, np.float32), "wav", 8_000), columns=5)
    assert (silent.whole("levels_dbfs") == -np.inf).all()
    assert (silent.whole("momentary_lufs")[1:4] == -np.inf).all()
    slow = draw(stored(tmp_path, noise(4.0, 500), "wav", 500), columns=5)
    assert np.isnan(slow.whole("momentary_lufs")).all()
    assert np.isfinite(slow.whole("levels_dbfs")).all()


def test_the_columns_come_in_order_and_early(tmp_path: Path) -> None:
    source = stored(tmp_path, noise(120.0, 8_000), "wav", 8_000)
    audio = probe_audio(source)
    parts = list(draw_parts_of(source, audio, PictureSpec(0, audio.frames, 400)))
    assert (parts[0].first, parts[-1].stop) == (0, 400)
    assert [part.first for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[0].stop < 60


def test_nan_is_drawn_as_zero_and_counted(tmp_path: Path) -> None:
    samples = tone(440, 1.0, RATE)
    samples[[100, 20_000]] = np.nan, np.inf
    picture = draw(stored(tmp_path, samples, "wav_float"))
    assert picture.non_finite == 2
    assert np.isfinite(picture.whole("maxima")).all()
    assert np.isfinite(picture.whole("levels_dbfs")).all()


def damage(folder: Path) -> tuple[StoredObject, np.ndarray]:
    """Return a recording with a damage in its middle, and its samples."""
    samples = noise(30.0, RATE)
    data = bytearray(encode(samples, RATE, "flac"))
    data[len(data) // 2 : len(data) // 2 + 2_000] = bytes(2_000)
    path = folder / "a.flac"
    path.write_bytes(data)
    return StoredObject(str(path)), samples


def test_a_damaged_recording_is_drawn_up_to_the_damage(tmp_path: Path) -> None:
    source, samples = damage(tmp_path)
    audio = probe_audio(source)
    parts, spec = list[PicturePart](), PictureSpec(0, audio.frames, 1_000)
    with pytest.raises(RecordingError) as raised:
        parts.extend(draw_parts_of(source, audio, spec))
    assert raised.value.cause is Cause.CORRUPT
    # All columns are drawn whose frames are before the damage, to within a small block.
    assert 0 <= raised.value.frames - spec.borders[parts[-1].stop] < 1_024 + 2 * RATE * 30 // 1_000
    maxima = np.concatenate([part.maxima for part in parts], axis=1)[0]
    expected = envelope_of(samples[:, None], spec.borders)[1][0]
    assert np.abs(maxima - expected[: len(maxima)]).max() < 1 / 32768


def test_a_reader_draws_a_damaged_recording_up_to_the_block_of_the_damage(tmp_path: Path) -> None:
    source, _ = damage(tmp_path)
    audio, pictures = probe_audio(source), list[Picture]()
    with open_audio(source, audio) as reader, pytest.raises(RecordingError):
        pictures.extend(draw_picture(reader, PictureSpec(0, audio.frames, 100)))
    assert 0.3 < pictures[-1].drawn < 0.6


def test_what_is_left_of_a_truncated_file_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(tone(440, 2.0, RATE), RATE, "wav")[:80_000])
    source = StoredObject(str(path))
    with pytest.raises(RecordingError) as raised:
        probe_audio(source)
    audio = raised.value.audio
    *_, last = draw_parts_of(source, audio, PictureSpec(0, audio.frames, 100))
    assert last.stop == 100


def test_64_channels_are_drawn_apart(tmp_path: Path) -> None:
    samples = np.linspace(0, 0.5, 64, dtype=np.float32) * np.ones((9_000, 1), np.float32)
    picture = draw(stored(tmp_path, samples, "wav_float", 8_000), columns=10)
    assert np.allclose(picture.whole("maxima")[:, 0], np.linspace(0, 0.5, 64), atol=1e-7)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (60, 600):
        source = stored(tmp_path, noise(seconds, 8_000), "wav", 8_000)
        draw(source)  # what is imported and cached is not counted
        tracemalloc.start()
        draw(source)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("start", "stop", "columns"), [(5, 5, 1), (0, 10, 11), (-1, 10, 2), (0, 10, 0)]
)
def test_a_picture_without_a_frame_for_each_column_is_refused(
    start: int, stop: int, columns: int
) -> None:
    with pytest.raises(ValueError, match="there must be a frame for each column"):
        PictureSpec(start, stop, columns)


def test_frames_and_channels_that_the_recording_lacks_are_refused(tmp_path: Path) -> None:
    source = stored(tmp_path, tone(440, 0.1, RATE), "wav")
    with pytest.raises(ValueError, match="the recording has 4410 frames and 1 channels"):
        draw(source, stop=4_411)
    with pytest.raises(ValueError, match="the recording has 4410 frames and 1 channels"):
        draw(source, channel=1)
