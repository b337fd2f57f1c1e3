"""Test what the channels have in common, and what a mix to mono loses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.channels import MEASURES, ChannelsMeter
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real

RATE = 8000
LEFT, RIGHT = np.random.default_rng(1).normal(0, 0.1, (2, 5 * RATE))


def readings(*channels: np.ndarray) -> dict:
    read = measure(ChannelsMeter, np.stack(channels, axis=1), RATE)
    return {name.removeprefix("channels."): value for name, value in read.items()}


def test_equal_channels_are_dual_mono_and_lose_nothing():
    read = readings(LEFT, LEFT)
    assert read["dual_mono"] is True
    assert read["correlation"] == 1.0
    assert read["mono_loss"] == pytest.approx(0, abs=1e-5)
    assert (read["dead"], read["inverted"], read["imbalance"]) == (False, False, 0.0)


def test_dual_mono_may_have_noise_of_a_codec_but_not_more():
    noise = np.random.default_rng(2).normal(0, 0.1, len(LEFT))
    assert readings(LEFT, LEFT + noise * 10 ** (-56 / 20))["dual_mono"] is True
    assert readings(LEFT, LEFT + noise * 10 ** (-40 / 20))["dual_mono"] is False


def test_independent_channels_lose_three_decibels():
    read = readings(LEFT, RIGHT)
    # 40,000 independent samples: the correlation scatters by 0.005.
    assert read["correlation"] == pytest.approx(0, abs=0.02)
    assert read["mono_loss"] == pytest.approx(3.01, abs=0.1)
    assert read["dual_mono"] is False


def test_opposite_channels_are_inverted_and_cancel():
    read = readings(LEFT, -LEFT)
    assert (read["inverted"], read["dual_mono"]) == (True, False)
    assert (read["correlation"], read["mono_loss"]) == (-1.0, 120.0)


def test_a_quiet_channel_is_dead_only_far_below_the_other():
    assert readings(LEFT, RIGHT * 1e-4)["dead"] is True
    assert readings(LEFT, RIGHT * 1e-2)["dead"] is False
    assert readings(LEFT, 0 * RIGHT)["dead"] is True
    assert readings(LEFT, RIGHT * 1e-2)["imbalance"] == pytest.approx(40, abs=0.2)


def test_the_low_frequency_channel_may_be_silent():
    surround = [LEFT] * 6
    assert readings(*surround[:3], 0 * LEFT, *surround[4:])["dead"] is False
    assert readings(*surround[:2], 0 * LEFT, *surround[3:])["dead"] is True
    assert (readings(*surround)["imbalance"], readings(*surround)["mono_loss"]) == (None, None)
    # All is silent but the low frequencies: the channels that are considered are dead.
    silent = [0 * LEFT] * 3
    assert readings(*silent, LEFT, 0 * LEFT, 0 * LEFT)["dead"] is True


@pytest.mark.parametrize("channels", [[LEFT], [0 * LEFT, 0 * LEFT], [0 * LEFT] * 64])
def test_one_channel_and_silence_have_no_readings(channels):
    assert measure(ChannelsMeter, np.stack(channels, axis=1), RATE) == {
        measure.name: None for measure in MEASURES
    }


@pytest.mark.filterwarnings("error")
def test_absurd_samples_have_defined_readings():
    read = measure(ChannelsMeter, np.full((9000, 2), [3e38, -3e38]), RATE)
    assert all(value is None or np.isfinite(value) for value in read.values())


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_real_recordings_are_as_numpy_says(path):
    samples, rate_hz = read_real(path)
    read = measure(ChannelsMeter, samples, rate_hz)
    if samples.shape[1] < 2:
        assert read["channels.correlation"] is None
        return
    left, right = samples.astype(np.float64).T
    product = (left @ right) / np.sqrt((left @ left) * (right @ right))
    # Each sum of a hop is of float32 samples; the difference of sums loses a digit.
    assert read["channels.correlation"] == pytest.approx(product, abs=1e-5)
    mix = (left + right) / 2
    loss = 10 * np.log10((left @ left + right @ right) / 2 / (mix @ mix))
    assert read["channels.mono_loss"] == pytest.approx(loss, abs=1e-3)
    assert (read["channels.dead"], read["channels.inverted"]) == (False, False)


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 9000), st.integers(1, 4), st.lists(st.integers(1, 5)))
def test_parts_give_the_same_as_the_whole(seed, frames, channels, borders):
    samples = np.random.default_rng(seed).normal(0, 0.1, (frames, channels)).astype(np.float32)
    whole = read_part(ChannelsMeter, samples, 1000, 0, frames)
    assert measure_in_parts(ChannelsMeter, samples, 1000, borders) == whole
