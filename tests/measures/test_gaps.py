"""Test that dropouts are found, and that stops of music and synthetic plateaus are not dropouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.gaps import GapsMeter, find_runs
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real
from tests.signals import clipped, constant, noise, silence, song, sweep, times, tone

RATE = 44_100
SECONDS = times(3, RATE)


def sound(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Return a tone and noise, about -12 dBFS, [frames, channels]."""
    return tone(220, seconds, rate, 0.3)[:, None] + noise(seconds, rate, 1).reshape(-1, 1).repeat(
        channels, axis=1
    )


def drop(samples: np.ndarray, at: float, seconds: float, rate: int, frozen: bool = False) -> None:
    """Make a dropout: silence, or the sample before it."""
    first, stop = round(at * rate), round((at + seconds) * rate)
    samples[first:stop] = samples[first - 1] if frozen else 0


def count_of(samples: np.ndarray, rate: int = RATE) -> int:
    return measure(GapsMeter, samples, rate)["gaps.count"]


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("seconds", [0.0015, 0.02, 0.5])
def test_a_dropout_has_its_place_and_duration(rate: int, frozen: bool, seconds: float) -> None:
    samples = sound(2.5, rate, 2)
    drop(samples[:, 1], 1.7, seconds, rate, frozen)
    readings = measure(GapsMeter, samples, rate)
    assert readings["gaps.count"] == 1
    # A sample before or after the dropout may have the value of the dropout by chance.
    assert readings["gaps.seconds"] == pytest.approx(seconds, abs=2 / rate)
    assert readings["gaps.longest"] == readings["gaps.seconds"]
    (event,) = readings["gaps.events"]
    assert event["second"] == pytest.approx(1.7, abs=2 / rate)
    assert event["channel"] == 1
    assert event["value"] == pytest.approx(1000 * seconds, abs=2000 / rate)


def test_a_dropout_of_several_blocks_is_one() -> None:
    for seconds, count in ((3.0, 1), (3.4, 1), (3.6, 0)):
        samples = sound(8, 8_000)
        drop(samples, 1.9, seconds, 8_000)
        readings = measure(GapsMeter, samples, 8_000)
        assert readings["gaps.count"] == count
        assert readings["gaps.longest"] == pytest.approx(seconds * count, abs=1e-3)


def test_a_run_of_less_than_a_millisecond_is_no_dropout() -> None:
    samples = sound(1, RATE)
    drop(samples, 0.5, 0.0008, RATE)
    assert count_of(samples) == 0


def test_overlapping_dropouts_of_the_channels_are_one() -> None:
    samples = sound(5, RATE, 3)
    drop(samples[:, :2], 0.5, 0.1, RATE)
    drop(samples[:, 2], 0.51, 0.2, RATE)
    # These cross the border between two blocks, at 2 s.
    drop(samples[:, 1:], 1.9, 0.3, RATE)
    drop(samples[:, 0], 3.5, 0.1, RATE)
    drop(samples[:, 1], 3.7, 0.1, RATE)
    readings = measure(GapsMeter, samples, RATE)
    assert readings["gaps.count"] == 4
    assert readings["gaps.seconds"] == pytest.approx(0.2 + 0.3 + 0.1 + 0.1, abs=1e-3)
    assert [event["channel"] for event in readings["gaps.events"]] == [2, 1, 0, 1]


def test_silence_is_found_in_sound_with_an_offset() -> None:
    samples = sound(1, RATE) + 0.6
    drop(samples, 0.5, 0.05, RATE)
    assert count_of(samples) == 1


def test_silence_at_the_start_and_at_the_end_is_no_dropout() -> None:
    samples = sound(2, RATE)
    samples[: RATE // 2] = samples[-RATE // 2 :] = 0
    assert count_of(samples) == 0


@pytest.mark.parametrize("quiet", [slice(None, RATE), slice(RATE, None), slice(None)])
def test_both_sides_of_a_dropout_are_loud(quiet: slice) -> None:
    samples = sound(2, RATE)
    samples[quiet] *= 10 ** (-35 / 20)
    drop(samples, 1, 0.05, RATE)
    assert count_of(samples) == 0


@pytest.mark.parametrize("fade_seconds", [0.002, 0.005, 0.02])
def test_music_that_fades_and_starts_again_has_no_dropouts(fade_seconds: float) -> None:
    length, fade = round(0.4 * RATE), round(fade_seconds * RATE)
    gate = np.concatenate([np.linspace(0, 1, fade), np.ones(length // 2), np.linspace(1, 0, fade)])
    gate = np.tile(np.pad(gate, (0, length - len(gate))), 20)[: 8 * RATE]
    assert np.count_nonzero(gate == 0) > RATE
    assert count_of(sound(8, RATE)[: len(gate), 0] * gate) == 0
    assert count_of(song(8, RATE)[: len(gate)] * gate) == 0


@pytest.mark.parametrize("fade_seconds", [0.005, 0.02])
def test_music_that_fades_and_starts_abruptly_has_no_dropouts(fade_seconds: float) -> None:
    length, fade = round(0.4 * RATE), round(fade_seconds * RATE)
    gate = np.concatenate([np.ones(length // 2), np.linspace(1, 0, fade)])
    gate = np.tile(np.pad(gate, (0, length - len(gate))), 20)
    assert count_of(sound(8, RATE)[:, 0] * gate[: 8 * RATE]) == 0


@pytest.mark.parametrize(("fade_seconds", "count"), [(0, 8), (0.003, 0)])
def test_a_cut_between_the_pulses_of_a_trumpet_is_a_dropout_and_a_fade_is_none(
    fade_seconds: float, count: int
) -> None:
    seconds = times(4.5, RATE)
    pulses = sum(np.cos(2 * np.pi * 250 * k * seconds) for k in range(1, 40)) / 40
    samples = 0.5 * pulses + tone(31, 4.5, RATE, 0.1) + noise(4.5, RATE, 1) * 1e-4
    fade = np.linspace(1, 0, round(fade_seconds * RATE) + 1)[:-1]
    for number in range(1, 9):
        first = round((0.5 * number + 0.002) * RATE)  # the middle between two pulses
        stop = first + round(0.0361 * RATE)
        samples[first - len(fade) : first] *= fade
        samples[stop : stop + len(fade)] *= fade[::-1]
        samples[first:stop] = 0
    assert count_of(samples) == count


def pulse(hz: float, width: float) -> np.ndarray:
    return np.where(hz * SECONDS % 1 < width, 0.5, -0.5)


def stairs(hz: float) -> np.ndarray:
    """Return a triangle of 16 steps, as of an 8-bit game console."""
    return np.rint(np.abs(hz * SECONDS % 1 - 0.5) * 30) / 15 - 0.5


@pytest.mark.parametrize("hz", [5, 30, 55, 82.4, 100, 220, 441])
def test_plateaus_of_synthesisers_and_of_clipped_sound_are_no_dropouts(hz: float) -> None:
    for width in (0.5, 0.25, 0.125):
        assert count_of(pulse(hz, width)) == 0
    assert count_of(stairs(hz)) == 0
    assert count_of(np.maximum(tone(hz, 3, RATE), 0)) == 0
    assert count_of(clipped(hz, 3, RATE, gain=9)) == 0
    assert count_of(clipped(hz, 3, RATE) + 0.05 * clipped(7 * hz, 3, RATE)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_music_of_a_game_console_has_no_dropouts(seed: int) -> None:
    random, notes = np.random.default_rng(seed), []
    for _ in range(24):
        hz = 110 * 2 ** (random.integers(0, 36, 3) / 12)
        voices = np.stack([pulse(hz[0], 0.5), pulse(hz[1], 0.125), stairs(hz[2])])[:, : RATE // 8]
        notes.append((random.random(3) < 0.7) @ (0.25 * voices))
        notes[-1][: RATE // 24] += random.choice([0, 0.2], RATE // 24) * (random.random() < 0.5)
    assert count_of(np.concatenate(notes)) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_coarse_samples_have_no_dropouts(bits: int) -> None:
    steps = 2 ** (bits - 1)
    for samples in (tone(20, 3, RATE, 0.1), tone(50, 3, RATE), song(3, RATE), sweep(3, RATE)):
        assert count_of(np.rint(samples * steps) / steps) == 0


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_have_no_dropouts(path: Path) -> None:
    samples, rate = read_real(path)
    assert count_of(samples, rate) == 0
    # Among steps of 8 bits, speech of some words has a run of a millisecond by chance.
    assert count_of(np.rint(samples[: 20 * rate] * 127) / 127, rate) <= 1
    # Most samples are at a plateau then, and plateaus last longer than a millisecond.
    overdriven = np.clip(100 * (samples - samples.mean(axis=0)), -1, 1)[: 10 * rate]
    assert count_of(overdriven, rate) == 0


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_dropouts_of_real_recordings_are_found(path: Path, frozen: bool) -> None:
    samples, rate = read_real(path)
    samples, places = samples[: 30 * rate].copy(), []
    for at in np.arange(0.4, len(samples) / rate - 0.4, 0.2):
        frame, beside = round(at * rate), round(0.005 * rate)
        value = samples[frame - 1] if frozen else 0
        sides = samples[frame - beside : frame], samples[frame + 2 * beside :][:beside]
        levels = [np.square(side - value).mean(axis=0) for side in sides]
        if np.min(levels, axis=0).max() > 1.1e-4:
            drop(samples, at, 0.01, rate, frozen)
            places.append(at)
    count = count_of(samples, rate)
    # 11 of 13 dropouts of the trumpet are found, whose pulses have calm parts that look like a fade
    # for 0.5 ms; 95 % or more of those of speech at 16 kHz, and 99 % or more of those of music.
    assert len(places) >= 4
    assert 0.84 * len(places) <= count <= len(places)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [10, 8_000, 192_000])
@pytest.mark.parametrize("channels", [1, 64])
def test_silence_an_offset_and_one_sample_have_no_dropouts(rate: int, channels: int) -> None:
    for samples in (silence(0.5, rate), constant(0.5, rate), constant(1 / rate, rate)):
        readings = measure(GapsMeter, samples[:, None].repeat(channels, axis=1), rate)
        assert readings == dict.fromkeys(readings, 0) | {"gaps.events": []}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_absurd_samples_have_defined_readings(value: float) -> None:
    samples = sound(3, 8_000, 2)
    samples[8_000:8_100, 0] = samples[15_000:17_000, 1] = value
    for at in (0.2, 0.4, 0.6):
        drop(samples, at, 0.05, 8_000)
    readings = measure(GapsMeter, samples, 8_000)
    assert readings["gaps.count"] >= 1
    assert np.isfinite(readings["gaps.seconds"])


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    channels=st.integers(1, 3),
    fewest=st.integers(4, 12),
)
def test_all_runs_are_found(lengths: list[int], channels: int, fewest: int) -> None:
    values = np.repeat(np.arange(len(lengths)), lengths).astype(np.float32)
    stops = np.cumsum(lengths)
    expected = [
        [channel, stop - length, stop]
        for channel in range(channels)
        for stop, length in zip(stops.tolist(), lengths, strict=True)
        if length >= fewest
    ]
    assert find_runs(np.tile(values, (channels, 1)), fewest).tolist() == expected


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    blocks=st.integers(0, 5),
    rest=st.integers(1, 8_000),
    channels=st.integers(1, 2),
    borders=st.sets(st.integers(1, 5)),
)
def test_parts_give_the_same_as_the_whole(
    seed: int, blocks: int, rest: int, channels: int, borders: set[int]
) -> None:
    random, rate, frames = np.random.default_rng(seed), 4_000, blocks * 8_000 + rest
    samples = random.normal(0, 0.1, (frames, channels)).astype(np.float32)
    for _ in range(random.integers(12)):
        channel = slice(None) if random.random() < 0.3 else random.integers(channels)
        first, length = (
            random.integers(frames),
            random.choice([10, 50, 300, rate, 3 * rate, 5 * rate]),
        )
        samples[first : first + length, channel] = random.choice([0, samples[first - 1, 0]])
    for border in range(8_000, frames, 8_000):
        crossing = slice(border - random.integers(1, 99), border + random.integers(99))
        samples[crossing, random.integers(channels)] = 0
    whole = read_part(GapsMeter, samples, rate, 0, frames)
    for division in (sorted(borders), [1], [2], [1, 3]):
        parts = measure_in_parts(GapsMeter, samples, rate, division)
        assert parts == whole
        assert parts.readings() == whole.readings()
