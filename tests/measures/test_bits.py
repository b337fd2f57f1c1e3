"""Test the number of bits that samples use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.bits import BitsMeter
from tests.measures.meters import encoded, measure, measure_in_parts, read_part

RATE = 8000
NOISE = np.random.default_rng(3).normal(0, 0.1, 4 * RATE).astype(np.float32)


def bits(samples: np.ndarray) -> int | None:
    return measure(BitsMeter, samples, RATE)["origin.bits"]


@pytest.mark.parametrize("used", [4, 8, 12, 16, 20, 24])
def test_the_used_bits_are_counted(used):
    steps = 2 ** (used - 1)
    assert bits(np.rint(NOISE * steps) / steps) == used


@pytest.mark.parametrize(("name", "used"), [("wav8", 8), ("wav", 16), ("wav24", 24), ("flac", 16)])
def test_files_use_the_bits_of_their_format(name, used):
    assert bits(encoded(NOISE, RATE, name)) == used


def test_16_bits_in_a_file_of_24_are_found():
    padded = np.rint(NOISE * 32768) / 32768
    assert bits(encoded(padded.astype(np.float32), RATE, "flac24")) == 16


def test_lossy_and_float_samples_have_no_number_of_bits():
    assert bits(NOISE) is None
    assert bits(encoded(NOISE, RATE, "ogg")) is None


@pytest.mark.parametrize("samples", [np.zeros(9000), np.zeros((9000, 64))])
def test_silence_has_no_number_of_bits(samples):
    assert bits(samples) is None


def test_full_scale_is_one_bit():
    assert bits(np.full(9, -1.0)) == 1
    assert bits(np.array([1.0])) == 1


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 9000), st.lists(st.integers(1, 5)))
def test_parts_give_the_same_as_the_whole(seed, frames, borders):
    random = np.random.default_rng(seed)
    # Some blocks hold integers of 16 bits, some of 24, and now and then there is a float.
    steps = random.choice([2.0**15, 2.0**23, 2.0**25], (frames // 2000 + 1), p=[0.6, 0.3, 0.1])
    scale = np.repeat(steps, 2000)[:frames, None]
    samples = (np.rint(random.normal(0, 0.1, (frames, 1)) * scale) / scale).astype(np.float32)
    whole = read_part(BitsMeter, samples, 1000, 0, frames)
    assert measure_in_parts(BitsMeter, samples, 1000, borders) == whole
