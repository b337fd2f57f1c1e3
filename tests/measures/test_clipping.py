"""Test that clipping is found at any level, and that synthetic plateaus are not clipping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.clipping import ClippingMeter
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real

RATE = 44_100
SECONDS = np.arange(3 * RATE) / RATE
NOISE = np.random.default_rng(5).normal(0, 0.2, 3 * RATE)


def as_16_bit(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 32768), -32768, 32767) / 32768


def song() -> np.ndarray:
    """Return tones and noise with a peak of about 1."""
    low = sum(np.sin(2 * np.pi * hz * SECONDS) / 4 for hz in (110, 277, 401))
    return low + 0.1 * NOISE


def runs_of(samples: np.ndarray) -> int:
    return measure(ClippingMeter, as_16_bit(samples), RATE)["clipping.runs"]


@pytest.mark.parametrize("gain", [1.0, 0.5, 0.1])
def test_clipping_is_found_at_any_level(gain):
    clipped = gain * np.clip(2 * song(), -0.9, 0.9)
    readings = measure(ClippingMeter, as_16_bit(clipped), RATE)
    flat = np.abs(2 * song()) >= 0.9
    # Runs of one and two samples do not count.
    assert 0.7 * flat.mean() < readings["clipping.share"] <= flat.mean()
    assert readings["clipping.level"] == pytest.approx(20 * np.log10(0.9 * gain), abs=0.01)
    assert min(readings["clipping.positive"], readings["clipping.negative"]) > 100
    longest = max(event["value"] for event in readings["clipping.events"])
    assert readings["clipping.longest"] == longest
    second = readings["clipping.events"][0]["second"]
    assert flat[round(second * RATE)]


def test_one_side_may_be_clipped():
    readings = measure(ClippingMeter, as_16_bit(np.minimum(song(), 0.5)), RATE)
    assert readings["clipping.positive"] > 20
    assert readings["clipping.negative"] == 0


def test_a_song_that_is_not_clipped_has_no_runs():
    assert runs_of(0.9 * song() / np.abs(song()).max()) == 0


@pytest.mark.parametrize("hz", [50, 100, 441, 997, 3000])
@pytest.mark.parametrize("width", [0.5, 0.125])
def test_square_waves_are_not_clipped(hz, width):
    phase = hz * SECONDS % 1
    square = np.where(phase < width, 0.8, -0.8)
    assert runs_of(square) == 0
    # A sampled edge may have any value between the plateaus.
    smooth = np.convolve(np.repeat(square, 4), np.ones(4) / 4)[::4]
    assert runs_of(smooth) == 0


def test_stairs_and_slow_sines_are_not_clipped():
    triangle = np.abs(220 * SECONDS % 1 - 0.5) * 4 - 1
    assert runs_of(np.rint(triangle * 7.5) / 8) == 0
    # At 20 Hz the top of a sine stays within a step of 16 bits for samples: but it is round.
    assert runs_of(np.sin(2 * np.pi * 20 * SECONDS)) == 0
    assert runs_of(0.01 * np.sin(2 * np.pi * 20 * SECONDS)) == 0


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_real_recordings_are_clipped_when_they_are_clipped(path):
    samples, rate_hz = read_real(path)
    before = measure(ClippingMeter, samples, rate_hz)
    limit = 0.5 * np.abs(samples).max()
    after = measure(ClippingMeter, np.clip(samples, -limit, limit), rate_hz)
    assert before["clipping.runs"] == 0
    # A robin sings so high that its tops have one or two samples: that is below what counts.
    if "robin" not in path.name:
        assert after["clipping.share"] > 0.3 * (np.abs(samples) >= limit).mean()


@pytest.mark.parametrize("channels", [1, 64])
def test_silence_an_offset_and_one_sample_are_not_clipped(channels):
    for samples in (np.zeros((9000, channels)), np.full((9000, channels), 0.5), np.ones((1, 1))):
        readings = measure(ClippingMeter, samples, RATE)
        assert (readings["clipping.runs"], readings["clipping.share"]) == (0, 0.0)
        assert readings["clipping.level"] is None


@pytest.mark.filterwarnings("error")
def test_absurd_samples_have_defined_readings():
    readings = measure(ClippingMeter, 3e38 * np.clip(2 * song(), -1, 1), RATE)
    assert all(value is None or np.isfinite(value) for value in list(readings.values())[:-1])


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    frames=st.integers(1, 12_000),
    channels=st.integers(1, 2),
    borders=st.lists(st.integers(1, 6), max_size=5),
)
def test_parts_give_the_same_as_the_whole(seed, frames, channels, borders):
    random = np.random.default_rng(seed)
    slow = np.cumsum(random.normal(0, 0.05, (frames, channels)), axis=0)
    # The largest value differs between the blocks by steps of 16 bits, and by much more.
    limit = np.repeat(random.choice([0.5, 0.5 + 1 / 32768, 0.4, 0.9], 7), 2000)[:frames, None]
    samples = np.clip(np.sin(slow), -limit, limit).astype(np.float32)
    whole = read_part(ClippingMeter, samples, 1000, 0, frames)
    assert measure_in_parts(ClippingMeter, samples, 1000, borders) == whole
