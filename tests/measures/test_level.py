"""Test the levels, silences, and sound at the ends of a recording, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.level import LevelMeter, count_denormals
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real

RATE = 8000


def tone(
    seconds: float, level_db: float = -6.0, rate_hz: int = RATE, hz: float = 440
) -> np.ndarray:
    frames = np.arange(round(seconds * rate_hz))
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * frames / rate_hz)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_levels_of_real_recordings_are_those_of_the_formulas(path):
    samples, rate_hz = read_real(path)
    readings = measure(LevelMeter, samples, rate_hz)
    exact = samples.astype(np.float64)
    assert readings["level.peak"] == pytest.approx(20 * np.log10(np.abs(exact).max()), abs=1e-9)
    frame = round(readings["level.peak_second"] * rate_hz)
    assert np.abs(samples[frame]).max() == np.abs(samples).max()
    assert frame == np.abs(samples).max(axis=1).argmax()
    # Hops are added in float32: 4,410 squares, each rounded to 6e-8, of a sum within 1e-5 dB.
    rms = 10 * np.log10(np.square(exact).mean())
    assert readings["level.rms"] == pytest.approx(rms, abs=1e-4)
    assert readings["level.crest"] == readings["level.peak"] - readings["level.rms"]
    # Sums of float32 by pairs: 88,200 samples of at most 1, each rounded to 6e-8.
    assert readings["noise.offset"] == pytest.approx(np.abs(exact.mean(axis=0)).max(), abs=1e-6)


def test_the_offset_is_the_largest_of_all_channels():
    samples = np.stack([tone(3), tone(3) - 0.02], axis=1)
    assert measure(LevelMeter, samples, RATE)["noise.offset"] == pytest.approx(0.02, abs=1e-4)


def test_the_noise_floor_is_what_is_left_in_the_pauses():
    noise = np.random.default_rng(0).normal(0, 1e-3, 10 * RATE)
    signal = noise + np.concatenate([np.zeros(RATE), tone(9)])
    floor = measure(LevelMeter, signal, RATE)["noise.floor"]
    # 1e-3 is −60 dB; the RMS of 800 samples scatters by 0.2 dB, and the lowest twentieth is read.
    assert floor == pytest.approx(-60, abs=0.5)


def test_digital_silence_in_pauses_is_not_the_noise_floor():
    signal = np.concatenate([np.zeros(5 * RATE), tone(5)])
    assert measure(LevelMeter, signal, RATE)["noise.floor"] == pytest.approx(-9.0, abs=0.1)


def test_silences_are_found_where_they_are():
    parts = [np.zeros(RATE), tone(2), np.zeros(3 * RATE), tone(1), np.zeros(RATE // 2)]
    readings = measure(LevelMeter, np.concatenate(parts), RATE)
    # Windows have 10 ms, and the tone begins and ends at zero.
    assert readings["silence.head"] == pytest.approx(1, abs=0.011)
    assert readings["silence.inside"] == pytest.approx(3, abs=0.011)
    assert readings["silence.tail"] == pytest.approx(0.5, abs=0.011)
    assert readings["silence.share"] == pytest.approx(4.5 / 7.5, abs=0.005)
    (event,) = readings["silence.events"]
    assert event["second"] == pytest.approx(3, abs=0.011)
    assert event["value"] == pytest.approx(3, abs=0.011)


def test_a_pause_of_a_second_is_no_event():
    readings = measure(LevelMeter, np.concatenate([tone(1), np.zeros(RATE), tone(1)]), RATE)
    assert readings["silence.events"] == []
    assert readings["silence.inside"] == pytest.approx(1, abs=0.011)


def test_a_recording_that_is_cut_off_is_loud_at_its_end():
    faded = tone(2) * np.minimum(1, np.arange(2 * RATE)[::-1] / RATE)
    assert measure(LevelMeter, faded, RATE)["cut.end"] < -35
    assert measure(LevelMeter, tone(2), RATE)["cut.end"] == pytest.approx(-6, abs=0.1)
    late = np.concatenate([np.zeros(RATE), tone(1)])
    assert measure(LevelMeter, late, RATE)["cut.start"] is None


def test_the_end_of_a_short_last_block_reaches_into_the_block_before():
    length = 2 * RATE
    signal = np.concatenate([tone(2)[: length - 1], [0.9, 0.0]])
    assert measure(LevelMeter, signal, RATE)["cut.end"] == pytest.approx(
        20 * np.log10(0.9), abs=1e-4
    )


def test_denormal_samples_are_counted_in_all_channels():
    tiny = np.finfo(np.float32).tiny  # the smallest number that is not denormal
    samples = np.zeros((3 * RATE, 2), np.float32)
    samples[:5] = tiny, -tiny
    samples[100:103, 0] = tiny / 2, -tiny / 2, np.finfo(np.float32).smallest_subnormal
    samples[2 * RATE :, 1] = np.nextafter(tiny, 0, dtype=np.float32)
    readings = measure(LevelMeter, samples, RATE)
    assert readings["level.denormals"] == 3 + RATE


@settings(max_examples=100)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_denormal_samples_are_those_that_ieee_754_calls_so(bits):
    samples = np.array(bits, np.uint32).view(np.float32)
    wide = samples.astype(np.float64)  # where the same numbers are normal, and compared exactly
    denormal = (wide != 0) & (np.abs(wide) < 2.0**-126)
    assert count_denormals(samples.reshape(1, -1)) == denormal.sum()


def test_silence_and_a_single_sample_have_defined_readings():
    silent = measure(LevelMeter, np.zeros(3 * RATE), RATE)
    undefined = ("level.peak", "level.rms", "level.crest", "level.peak_second", "noise.floor")
    assert [silent[name] for name in undefined] == [None] * 5
    assert (silent["silence.share"], silent["silence.head"], silent["silence.tail"]) == (1, 3, 0)
    single = measure(LevelMeter, np.array([0.5]), RATE)
    assert single["level.peak"] == single["level.rms"] == single["cut.end"]
    assert single["noise.floor"] is None


@pytest.mark.filterwarnings("error")
def test_absurd_samples_have_defined_readings():
    samples = np.array([[3e38, -3e38], [3e38, 1e-38]] * 5000, np.float32)
    readings = measure(LevelMeter, samples, RATE)
    assert readings["level.peak"] == pytest.approx(769.5, abs=0.1)
    assert np.isfinite(readings["level.rms"])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    frames=st.integers(1, 9_000),
    channels=st.integers(1, 3),
    borders=st.lists(st.integers(1, 5), max_size=4),
)
def test_parts_give_the_same_as_the_whole(seed, frames, channels, borders):
    random = np.random.default_rng(seed)
    samples = random.normal(0, 0.1, (frames, channels)).astype(np.float32)
    # Silences of random lengths, also over whole blocks.
    for start in random.integers(0, frames, 4):
        samples[start : start + random.integers(1, 4000)] = 0
    samples[random.random(samples.shape) < 0.01] = 1e-40
    whole = read_part(LevelMeter, samples, 1000, 0, frames)
    assert measure_in_parts(LevelMeter, samples, 1000, borders) == whole
