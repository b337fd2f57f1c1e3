"""Tests that channels are mixed as librosa mixes them, or selected."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.features.channels import check_channels, count_channels, select_channels
from tests import signals

RATE = 8_000


def block(channels: int) -> np.ndarray:
    return signals.noise(0.1, RATE, channels=channels).reshape(-1, channels)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_mono_is_librosas(channels: int) -> None:
    theirs = librosa.to_mono(block(channels).T)
    # librosa sums the same floats in another order; the results differ in the last bits.
    assert_allclose(select_channels(block(channels), "mono")[:, 0], theirs, rtol=0, atol=1e-7)


def test_mono_of_two_channels_is_librosas_to_the_bit() -> None:
    assert_array_equal(select_channels(block(2), "mono")[:, 0], librosa.to_mono(block(2).T))


@pytest.mark.parametrize("channels", [2, 3, 6])
@pytest.mark.parametrize("amplitude", [1.0, 1e-38, 1e-42])
def test_a_samples_mix_does_not_depend_on_its_block(channels: int, amplitude: float) -> None:
    samples = block(channels) * np.float32(amplitude)  # the two small amplitudes are denormal
    whole = select_channels(samples, "mono")
    for size in (1, 2, 3, 5, 7, 33, 100):
        for first in range(0, len(samples) - size, 41):
            part = select_channels(samples[first : first + size], "mono")
            assert_array_equal(part, whole[first : first + size])


def test_opposite_channels_cancel() -> None:
    wave = signals.tone(440, 0.1, RATE)
    assert not select_channels(np.stack([wave, -wave], axis=1), "mono").any()


@pytest.mark.parametrize(("policy", "column"), [("left", 0), ("right", 1)])
def test_a_side_is_its_channel(policy: str, column: int) -> None:
    assert_array_equal(select_channels(block(6), policy), block(6)[:, [column]])


def test_left_of_one_channel_is_that_channel() -> None:
    check_channels(1, "left")
    assert_array_equal(select_channels(block(1), "left"), block(1))


def test_right_of_one_channel_is_refused() -> None:
    with pytest.raises(RecordingError) as raised:
        check_channels(1, "right")
    assert raised.value.cause == Cause.MISSING_CHANNEL


@pytest.mark.parametrize("policy", ["mono", "left", "right", "each"])
@pytest.mark.parametrize("channels", [2, 6])
def test_a_chunk_gives_as_many_rows_as_are_counted(policy: str, channels: int) -> None:
    selected = select_channels(block(channels), policy)
    assert selected.shape == (800, count_channels(channels, policy))
    assert selected.dtype == np.float32


@pytest.mark.parametrize("policy", ["mono", "left", "right", "each"])
def test_the_block_is_left_as_it_was(policy: str) -> None:
    samples = block(3)
    select_channels(samples, policy)
    assert_array_equal(samples, block(3))
