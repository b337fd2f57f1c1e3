"""Test that mains hum is found below music, and that bass, drones and clean music are not hum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.hum import HumMeter
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real
from tests.signals import constant, noise, silence, song, sweep, times, tone

RATE = 44_100
NO_HUM = {"hum.frequency": None, "hum.level": None, "hum.harmonics": 0}
UNDEFINED = dict.fromkeys(NO_HUM)
#: Levels of the first harmonics of hum in dB, as of a rectifier.
HARMONICS_DB = (0, -6, -4, -14, -10, -18, -16, -22)


def hum(
    seconds: float,
    rate: int,
    mains_hz: float = 50.0,
    level_dbfs: float = -40.0,
    harmonics_db: tuple[float, ...] = HARMONICS_DB,
) -> np.ndarray:
    """Return hum of a level."""
    samples = sum(
        tone(mains_hz * number, seconds, rate, 10 ** (decibels / 20))
        for number, decibels in enumerate(harmonics_db, start=1)
    )
    return 10 ** (level_dbfs / 20) * samples / np.sqrt(np.square(samples).mean())


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("mains_hz", [49.7, 50.0, 59.8, 60.3])
def test_hum_has_its_frequency_and_level(rate: int, mains_hz: float) -> None:
    samples = hum(6, rate, mains_hz) + noise(6, rate, amplitude=0.003)
    readings = measure(HumMeter, samples, rate)
    assert readings["hum.frequency"] == round(mains_hz, -1)
    # Levels are rounded to 1 dB, and the harmonics that are not counted have 0.4 dB.
    assert readings["hum.level"] == pytest.approx(-40, abs=0.9)
    # Harmonics may deviate by 1.5 Hz.
    assert readings["hum.harmonics"] >= min(
        8, int(1.4 / abs(mains_hz - round(mains_hz, -1) + 1e-9))
    )


@pytest.mark.parametrize("level_dbfs", [-60, -50, -40])
def test_hum_is_found_in_a_song(level_dbfs: float) -> None:
    # A song of -22 dBFS without low notes.
    samples = song(20, RATE) + hum(20, RATE, 60, level_dbfs)
    readings = measure(HumMeter, samples, RATE)
    assert readings["hum.frequency"] == 60
    assert readings["hum.level"] == pytest.approx(level_dbfs, abs=1.5)
    assert measure(HumMeter, song(20, RATE), RATE) == NO_HUM


def test_hum_is_found_in_either_channel_and_in_half_of_a_recording() -> None:
    samples = noise(12, RATE, channels=2, amplitude=0.003)
    samples[6 * RATE :, 1] += hum(6, RATE)
    readings = measure(HumMeter, samples, RATE)
    assert readings["hum.frequency"] == 50
    # The mean of two channels has half of the amplitude.
    assert readings["hum.level"] == pytest.approx(-46, abs=0.7)


def test_hum_has_low_harmonics() -> None:
    without_low = (-99, -99, 0, -3, -6, -9)
    for harmonics_db, count in (
        ((-99, 0, -99, -6), 2),
        ((0, -99, -3), 2),
        ((0,), 0),
        ((-99, 0), 0),
    ):
        readings = measure(HumMeter, hum(8, RATE, harmonics_db=harmonics_db), RATE)
        assert readings["hum.harmonics"] == count
    assert measure(HumMeter, hum(8, RATE, harmonics_db=without_low), RATE) == NO_HUM


@pytest.mark.parametrize("hz", [41.2, 46.25, 49, 49.2, 50.9, 51.9, 55, 58.3, 59.2, 61.74, 98])
def test_drones_and_organ_notes_are_not_hum(hz: float) -> None:
    for level_dbfs in (-10, -40):
        drone = hum(12, RATE, hz, level_dbfs) + noise(12, RATE, amplitude=0.001)
        assert measure(HumMeter, drone, RATE) == NO_HUM


@pytest.mark.parametrize("hz", [50, 60, 100])
def test_bass_notes_at_the_frequency_of_hum_are_not_hum(hz: float) -> None:
    # A bass line of five notes, each plucked with another strength.
    random, seconds = np.random.default_rng(1), times(0.7, RATE)
    line = [
        random.uniform(0.05, 1) * np.exp(-2 * seconds) * hum(0.7, RATE, hz * 2 ** (step / 12), -20)
        for step in random.choice([0, 2, 3, 5, 7], 80)
    ]
    line = np.concatenate(line)
    assert measure(HumMeter, line + noise(len(line) / RATE, RATE, amplitude=0.001), RATE) == NO_HUM


@pytest.mark.parametrize("hz", [50, 60, 100])
def test_swells_are_not_hum(hz: float) -> None:
    swell = hum(40, RATE, hz, -20) * np.sin(2 * np.pi * 0.15 * times(40, RATE))
    assert measure(HumMeter, swell + noise(40, RATE, amplitude=0.001), RATE) == NO_HUM


def test_long_notes_of_changing_strength_are_not_hum() -> None:
    notes = [hum(4, RATE, 50, level_dbfs) for level_dbfs in range(-60, -20, 5)]
    assert measure(HumMeter, np.concatenate(notes), RATE) == NO_HUM


@pytest.mark.parametrize("beats_hz", [2, 4, 5, 10, 20])
def test_a_rhythm_is_not_hum(beats_hz: int) -> None:
    # The lines of a strict rhythm are steady tones at all multiples of its frequency.
    seconds = times(1 / beats_hz, RATE)
    drum = 0.5 * np.exp(-20 * seconds) * np.sin(2 * np.pi * 55 * seconds)
    drums = np.tile(drum, 12 * beats_hz)
    assert (
        measure(HumMeter, drums + noise(len(drums) / RATE, RATE, amplitude=0.001), RATE) == NO_HUM
    )


@pytest.mark.parametrize("period", [1603, 801, 535, 401, 337, 225, 200, 100, 84])
def test_waves_of_synthesisers_are_not_hum(period: int) -> None:
    # Other periods than whole numbers of samples cause aliased tones, and some of these are at
    # multiples of 50 Hz.
    phase = np.arange(8 * RATE) % period / period
    stairs = np.rint(np.abs(phase - 0.5) * 30) / 15 - 0.5
    squares = [np.where(phase < width, 0.5, -0.5) for width in (0.5, 0.25, 0.125)]
    for wave in (*squares, phase - 0.5, stairs):
        assert measure(HumMeter, wave, RATE) == NO_HUM


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_noise_sweeps_and_single_tones_are_not_hum(rate: int) -> None:
    for samples in (noise(60, rate), sweep(20, rate, 20), tone(50, 8, rate), tone(100, 8, rate)):
        assert measure(HumMeter, samples, rate) == NO_HUM


@pytest.mark.parametrize("hz", [1_950.0, 2_000.0, 3_959.0, 4_000.0, 4_059.0, 8_050.0])
def test_high_tones_do_not_become_hum(hz: float) -> None:
    samples = tone(hz, 8, RATE) + tone(hz + 50, 8, RATE, 0.3) + noise(8, RATE, amplitude=0.003)
    assert measure(HumMeter, samples, RATE) == NO_HUM


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_have_no_hum(path: Path) -> None:
    samples, rate = read_real(path)
    assert measure(HumMeter, samples, rate) == NO_HUM
    # A phrase may be steady, but hum needs four levels.
    for start in range(0, len(samples) - 4 * rate, 4 * rate):
        assert measure(HumMeter, samples[start : start + 4 * rate], rate) == NO_HUM


@pytest.mark.parametrize("mains_hz", [50.0, 60.2])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_hum_below_real_recordings_is_found(path: Path, mains_hz: float) -> None:
    samples, rate = read_real(path)
    samples = samples[: 60 * rate] - samples.mean(axis=0)
    level_dbfs = 10 * np.log10(np.square(samples).mean()) - 12
    samples = samples + hum(len(samples) / rate, rate, mains_hz, level_dbfs)[:, None]
    readings = measure(HumMeter, samples, rate)
    assert readings["hum.frequency"] == round(mains_hz, -1)
    # Some harmonics are not counted among voices and basses, which may also add to them.
    assert level_dbfs - 5 < readings["hum.level"] < level_dbfs + 1.5
    assert readings["hum.harmonics"] >= 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [10, 8_000, 192_000])
def test_silence_and_an_offset_have_no_hum(rate: int) -> None:
    assert measure(HumMeter, silence(3, rate), rate) == NO_HUM
    assert measure(HumMeter, constant(3, rate), rate) == NO_HUM


def test_short_recordings_and_those_of_many_channels_have_no_readings() -> None:
    assert measure(HumMeter, hum(1.9, RATE), RATE) == UNDEFINED
    assert measure(HumMeter, constant(1 / RATE, RATE), RATE) == UNDEFINED
    # Their blocks are shorter than a second.
    many = hum(3, RATE)[:, None].repeat(64, axis=1)
    assert measure(HumMeter, many, RATE) == UNDEFINED


def test_one_block_of_hum_has_four_harmonics() -> None:
    assert measure(HumMeter, hum(2.1, RATE), RATE)["hum.frequency"] == 50
    assert measure(HumMeter, hum(2.1, RATE, harmonics_db=(0, -3, -6)), RATE) == NO_HUM


def test_hum_45_decibels_below_other_low_sound_is_not_heard() -> None:
    quiet = hum(8, RATE, level_dbfs=-60)
    assert measure(HumMeter, quiet, RATE)["hum.harmonics"] == 8
    assert measure(HumMeter, quiet + tone(440, 8, RATE), RATE) == NO_HUM


def test_blocks_of_more_than_a_second_have_readings() -> None:
    samples = hum(8, 48_000)[:, None].repeat(8, axis=1)
    assert measure(HumMeter, samples, 48_000)["hum.frequency"] == 50


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_absurd_samples_leave_the_other_blocks(value: float) -> None:
    samples = hum(12, 8_000)[:, None].repeat(2, axis=1)
    samples[8_000:8_010] = value
    assert measure(HumMeter, samples, 8_000)["hum.frequency"] == 50


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    rate=st.sampled_from([1_000, 2_500, 8_000]),
    seconds=st.floats(0.01, 15),
    channels=st.integers(1, 3),
    borders=st.lists(st.integers(1, 7), max_size=5),
)
def test_parts_give_the_same_as_the_whole(
    seed: int, rate: int, seconds: float, channels: int, borders: list[int]
) -> None:
    random = np.random.default_rng(seed)
    samples = noise(seconds, rate, seed, channels, 0.01).reshape(-1, channels)
    steady = hum(seconds, rate, random.choice([49.9, 60]))
    samples = (samples + (random.random() * steady)[:, None]).astype(np.float32)
    whole = read_part(HumMeter, samples, rate, 0, len(samples))
    parts = measure_in_parts(HumMeter, samples, rate, borders)
    assert parts == whole
    assert parts.readings() == whole.readings()
