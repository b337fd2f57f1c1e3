"""Integrated loudness, beside the tables of BS.1770, EBU's cases and FFmpeg's meter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.transforms.features.loudness import integrated_loudness, k_weighting
from melmill.transforms.features.waveform import WaveformExtractor, WaveformSpec, loudness_gain
from tests.features.references import RECORDINGS
from tests.ffmpeg_meter import read_with_ffmpeg
from tests.signals import noise

Samples = NDArray[np.float32]

#: FFmpeg counts blocks in a histogram of 0.01 LU, and prints thousandths.
FFMPEG_LU = 0.011


def measured_by_ffmpeg(samples: Samples, rate_hz: int) -> float:
    readings = read_with_ffmpeg(samples, rate_hz, "mono")
    return [float(reading["lavfi.r128.I"]) for reading in readings if "lavfi.r128.I" in reading][-1]


def sine(level_dbfs: float, seconds: float, rate_hz: int) -> Samples:
    samples = np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return (10 ** (level_dbfs / 20) * samples).astype(np.float32)


def test_the_filters_are_those_of_the_tables() -> None:
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241]
    high_pass = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
    sections = k_weighting(48_000)
    np.testing.assert_allclose(sections[0], [*shelf, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(sections[1], high_pass, atol=1e-9)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
    ids=["3341-1", "3341-2", "3341-3", "3341-4", "3341-5"],
)
def test_ebus_cases(levels: list[tuple[float, float]], expected: float, rate_hz: int) -> None:
    samples = np.concatenate([sine(level, seconds, rate_hz) for level, seconds in levels])
    loudness = integrated_loudness(samples, rate_hz)
    # EBU's signals are stereo. One of two equal channels has half of the energy.
    assert loudness + 10 * np.log10(2) == pytest.approx(expected, abs=0.1)
    assert loudness == pytest.approx(measured_by_ffmpeg(samples, rate_hz), abs=FFMPEG_LU)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 32_000, 44_100, 96_000])
def test_noise_of_changing_level_is_as_loud_as_ffmpeg_says(rate_hz: int) -> None:
    levels = np.random.default_rng(rate_hz).uniform(0.001, 1, 50)
    samples = noise(10, rate_hz) * np.repeat(levels, rate_hz // 5)[: 10 * rate_hz]
    samples = samples.astype(np.float32)
    expected = measured_by_ffmpeg(samples, rate_hz)
    assert integrated_loudness(samples, rate_hz) == pytest.approx(expected, abs=FFMPEG_LU)


@pytest.mark.parametrize("path", RECORDINGS[::4], ids=lambda path: path.stem)
def test_real_recordings_are_as_loud_as_ffmpeg_says(path: Path) -> None:
    samples, rate_hz = soundfile.read(path, frames=60 * 48_000, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    expected = measured_by_ffmpeg(mono, rate_hz)
    assert integrated_loudness(mono, rate_hz) == pytest.approx(expected, abs=FFMPEG_LU)


def test_silence_and_sounds_below_the_gate_have_no_loudness() -> None:
    assert integrated_loudness(np.zeros(48_000, np.float32), 48_000) == -np.inf
    assert integrated_loudness(np.zeros(0, np.float32), 48_000) == -np.inf
    assert integrated_loudness(sine(-75, 2, 48_000), 48_000) == -np.inf


def test_a_sound_shorter_than_a_block_is_one_block() -> None:
    loudness = integrated_loudness(sine(-20, 0.3, 48_000), 48_000)
    assert loudness == pytest.approx(-23, abs=0.3)  # the filters start from silence


def extract(samples: Samples, valid: int, spec: WaveformSpec) -> Samples:
    (levelled,) = WaveformExtractor(spec, 16_000)(samples[np.newaxis], [valid])
    return levelled


def test_a_chunk_gets_the_loudness_without_its_padding() -> None:
    samples = np.zeros(48_000, np.float32)
    samples[:32_000] = noise(2, 16_000) * np.float32(0.01)
    levelled = extract(samples, 32_000, WaveformSpec(level="loudness", loudness_lufs=-26))
    # The samples are rounded to float32.
    assert integrated_loudness(levelled[:32_000], 16_000) == pytest.approx(-26, abs=1e-4)
    assert not levelled[32_000:].any()


def test_no_sample_exceeds_full_scale() -> None:
    samples = sine(-6, 3, 16_000) * np.float32(0.1)
    samples[100] = 0.5
    spec = WaveformSpec(level="loudness", loudness_lufs=-3)
    assert loudness_gain(samples, 16_000, -3) == pytest.approx(2)
    assert np.abs(extract(samples, 48_000, spec)).max() == pytest.approx(1)
    as_int16 = extract(samples, 48_000, WaveformSpec("int16", "loudness", loudness_lufs=-3))
    assert as_int16.max() == 32_767


def test_silence_stays_silent() -> None:
    silence = np.zeros(16_000, np.float32)
    assert not extract(silence, 16_000, WaveformSpec(level="loudness")).any()
