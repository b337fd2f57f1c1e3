"""Test that copies of short sounds have keys in common, and that other sounds have few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.duplicates.candidates import POSTING, pick, postings, vote
from melmill.transforms.duplicates.waveform_candidates import (
    KEYS,
    waveform_key_bits,
    waveform_postings,
)
from tests.duplicates.prints import random_print
from tests.duplicates.waveforms import copied, random_sound, tone

CLIP = random_sound(1, 1)


def candidates(*waveforms: np.ndarray, bits: int = 20) -> list[tuple[int, int]]:
    rows = [waveform_postings(number, waveform, bits) for number, waveform in enumerate(waveforms)]
    picked = pick(vote(np.concatenate(rows)))
    assert not picked["offset"].any()
    return list(zip(picked["first"].tolist(), picked["second"].tolist(), strict=True))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([0.3, 0.5, 1, 4]), st.floats(0, 500), st.integers(0, 99))
def test_a_copy_is_a_candidate(seconds: float, lag: float, seed: int) -> None:
    clip = random_sound(seconds, seed)
    copy = copied(clip, lag, int(lag) + 1, noise=0.1, seed=seed + 1)
    assert candidates(clip, random_sound(seconds, seed + 100), copy)[-1:] == [(0, 2)]


def test_other_sounds_are_hardly_ever_candidates() -> None:
    clips = [random_sound(1, seed) for seed in range(150)]
    assert len(candidates(*clips)) < 0.003 * (150 * 149 / 2)


def test_sounds_of_other_levels_have_the_same_keys() -> None:
    quiet = waveform_postings(7, (CLIP // 2).astype(np.int8), 20)
    assert np.mean(quiet["key"] == waveform_postings(7, CLIP, 20)["key"]) > 0.8


def test_a_waveform_has_one_posting_of_each_key_in_order() -> None:
    rows = waveform_postings((1 << 64) - 1, CLIP, 12)
    assert rows.dtype == POSTING
    assert len(rows) == KEYS
    assert (np.diff(rows["key"].astype(object)) > 0).all()
    assert (rows["recording"] == (1 << 64) - 1).all()
    assert not rows["position"].any()


@given(st.integers(12, 28))
def test_more_bits_are_added_above(bits: int) -> None:
    keys, more = (waveform_postings(1, CLIP, number)["key"] for number in (bits, 28))
    low = np.uint64((1 << bits) - 1)
    assert (keys & low == more & low).all()
    assert ((keys & np.uint64(0xFFFFFFFF)) < 1 << bits).all()


def test_keys_of_waveforms_are_no_keys_of_words() -> None:
    words = postings(1, random_print(600, 1), 16)["key"]
    assert waveform_postings(2, CLIP, 28)["key"].min() > words.max()


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(4000, np.int8), np.zeros(0, np.int8), np.full(4000, 0, np.int8)[:1]],
    ids=["silence", "nothing", "one sample"],
)
def test_silence_has_no_keys(waveform: np.ndarray) -> None:
    assert len(waveform_postings(1, waveform, 20)) == 0


def test_a_tone_has_keys_which_cost_little() -> None:
    # Equal keys of many tones are common: each votes with one other.
    tones = [tone(440, phase) for phase in np.linspace(0, 6, 50)]
    assert len(candidates(*tones)) < 50 * KEYS


@given(st.integers(0, 1 << 50))
def test_keys_are_eight_times_as_many_as_waveforms(waveforms: int) -> None:
    bits = waveform_key_bits(waveforms)
    assert 12 <= bits <= 28
    if 12 < bits < 28:
        assert waveforms <= 1 << (bits - 3) < 2 * waveforms
