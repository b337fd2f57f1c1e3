"""Test that copies of short sounds match, and that sounds that are alike do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from melmill.transforms.duplicates.correlation import MAX_LAG, MIN_CORRELATION, compare_waveforms
from melmill.transforms.measures.short_waveforms import RATE_HZ
from tests.duplicates.waveforms import as_waveform, copied, random_sound, tone, white_noise

CLIP = random_sound(1, 1)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([0.15, 0.5, 1, 3]),
    st.floats(0, 500),
    st.integers(0, 99),
    st.sampled_from([1, -1]),
)
def test_a_copy_matches_at_its_lag(seconds: float, lag: float, seed: int, sign: int) -> None:
    clip, padding = white_noise(seconds, seed), int(lag) + 1
    match = compare_waveforms(clip, sign * copied(clip, lag, padding, 0.2, seed + 1))
    assert match is not None
    assert (match.kind, abs(match.offset - lag) <= 0.75) == ("same", True)
    # Noise of 0.2 of the sound takes 0.02 of the correlation.
    assert match.error == pytest.approx(0.01, abs=0.004)
    assert match.overlap == min(len(clip), len(clip) + padding - match.offset)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 99))
def test_the_order_of_waveforms_does_not_matter(lag: int, noise: float, seed: int) -> None:
    clip = random_sound(0.5, seed)
    copy = copied(clip, lag, 350, noise, seed + 1)
    match, swapped = compare_waveforms(clip, copy), compare_waveforms(copy, clip)
    assert swapped == (match and replace(match, offset=-match.offset))


def test_equal_waveforms_have_no_error() -> None:
    match = compare_waveforms(CLIP, CLIP)
    assert match is not None
    assert (match.offset, match.overlap, match.error) == (0, RATE_HZ, 0.0)


@pytest.mark.parametrize(("share", "is_match"), [(0.45, True), (0.53, False)])
def test_a_match_has_a_smallest_correlation(share: float, is_match: bool) -> None:
    noise = white_noise(1, 1)
    # The correlation with noise of a share of the sound is 1 / sqrt(1 + share²).
    assert (1 / np.sqrt(1 + share**2) > MIN_CORRELATION) == is_match
    assert (compare_waveforms(noise, copied(noise, noise=share)) is not None) == is_match


@pytest.mark.parametrize(("padding", "is_match"), [(MAX_LAG, True), (MAX_LAG + 1, False)])
def test_lengths_are_equal_but_for_padding(padding: int, is_match: bool) -> None:
    longer = np.concatenate([CLIP, np.zeros(padding, np.int8)])
    assert (compare_waveforms(CLIP, longer) is not None) == is_match
    assert (compare_waveforms(longer, CLIP) is not None) == is_match


def test_unrelated_sounds_do_not_match() -> None:
    clips = [random_sound(0.3, seed) for seed in range(20)]
    assert not any(compare_waveforms(a, b) for a in clips for b in clips if a is not b)


@pytest.mark.parametrize(("level", "is_match"), [(0.45, False), (0.05, True)])
def test_another_end_is_no_match_unless_it_is_quiet(level: float, is_match: bool) -> None:
    same, *ends = (white_noise(seconds, seed) for seed, seconds in enumerate((0.8, 0.2, 0.2)))
    first, second = (np.concatenate([same, level * end]).astype(np.int8) for end in ends)
    assert np.corrcoef(first, second)[0, 1] > 0.93
    assert (compare_waveforms(first, second) is not None) == is_match


@pytest.mark.parametrize(("level", "is_match"), [(0.25, False), (0.02, True)])
def test_another_band_is_no_match_unless_it_is_quiet(level: float, is_match: bool) -> None:
    noise = np.random.default_rng(1).normal(0, 1, (3, RATE_HZ))
    low = sosfilt(butter(4, 450, fs=RATE_HZ, output="sos"), noise[0])
    high = sosfilt(butter(4, 1100, "highpass", fs=RATE_HZ, output="sos"), noise[1:])
    first, second = (as_waveform(low / low.std() + level * part / part.std()) for part in high)
    assert np.corrcoef(first, second)[0, 1] > 0.93
    assert (compare_waveforms(first, second) is not None) == is_match


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_a_sound_that_repeats_itself_must_match_better(noise: float) -> None:
    """Only the noise of two recordings of one hum tells them apart."""
    hum = sum(tone(100 * n, n).astype(float) for n in range(1, 20))
    white = np.random.default_rng(1).normal(0, noise * hum.std(), (2, RATE_HZ))
    first, second = map(as_waveform, hum + white)
    assert np.corrcoef(first, second)[0, 1] > MIN_CORRELATION
    assert compare_waveforms(first, second) is None
    if noise > 0.1:  # less is hidden by the 8 bits
        assert compare_waveforms(first, copied(first, noise=0.05)) is not None


@pytest.mark.parametrize("decay_s", [1e9, 1.0, 0.3])
def test_tones_of_one_pitch_do_not_match(decay_s: float) -> None:
    first, second = (tone(440, phase, decay_s=decay_s) for phase in (0, 1))
    assert compare_waveforms(first, second) is None
    assert compare_waveforms(first, first) is None  # a tone could be any tone of its pitch


def test_clicks_do_not_match() -> None:
    clicks = np.zeros((2, RATE_HZ), np.int8)
    clicks[0, 100] = clicks[1, 200] = 127
    assert compare_waveforms(*clicks) is None


@pytest.mark.parametrize(
    "empty", [np.zeros(RATE_HZ, np.int8), np.zeros(1, np.int8), np.zeros(0, np.int8)]
)
def test_waveforms_without_sound_do_not_match(empty: np.ndarray) -> None:
    assert compare_waveforms(empty, empty) is None
    assert compare_waveforms(empty, CLIP) is None
    assert compare_waveforms(CLIP, empty) is None
