"""Test that copies match, and that recordings that share only a part do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.duplicates.candidates import pick, postings, vote
from melmill.transforms.duplicates.verification import MIN_OVERLAP, Match, compare
from tests.duplicates.prints import Words, flipped, masked, random_print

SONG = random_print(1_800, 1)
OTHER_SONG = random_print(1_800, 2)
NOTHING = np.zeros(1_800, np.uint32)


def test_a_copy_with_flipped_bits_is_found_and_the_same() -> None:
    copy = np.concatenate([random_print(37, 3), flipped(SONG, 0.15)])
    rows = np.concatenate([postings(1, SONG, 8), postings(2, copy, 8)])
    offset = int(pick(vote(rows))["offset"][0])
    match = compare(SONG, copy, offset)
    assert match == Match("same", 37, 1_800, pytest.approx(0.15, abs=0.005))


@pytest.mark.parametrize("at", [0, 700, 1_600])
def test_a_clip_is_contained(at: int) -> None:
    clip = flipped(SONG[at : at + 200], 0.1)
    expected = Match("contained", -at, 200, pytest.approx(0.1, abs=0.01))
    assert compare(SONG, clip, -at) == expected
    assert compare(clip, SONG, at) == replace(expected, offset=at)


@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_the_offsets_beside_are_compared(beside: int) -> None:
    match = compare(SONG, SONG[50:], -50 + beside)
    assert match is not None
    assert (match.offset, match.error) == (-50, 0.0)


def test_a_farther_offset_is_no_match() -> None:
    assert compare(SONG, SONG[50:], -52) is None


@given(st.integers(-400, 400), st.floats(0, 0.25), st.floats(0, 0.9), st.integers(0, 99))
def test_the_order_of_recordings_does_not_matter(
    offset: int, error: float, share: float, seed: int
) -> None:
    first = masked(SONG[:300], share, seed)
    second = flipped(first[max(0, -offset) :], error, seed)
    match = compare(first, second, offset)
    swapped = compare(second, first, -offset)
    assert swapped == (match and replace(match, offset=-match.offset))


def test_unrelated_recordings_do_not_match() -> None:
    clip = OTHER_SONG[:MIN_OVERLAP]
    assert not any(compare(SONG, clip, offset) for offset in range(-1_800, MIN_OVERLAP))


@pytest.mark.parametrize("other_bits", [0xFFFF, 0xFFFF0000, 0xFF, 0xFF0000])
def test_equal_parts_of_words_are_no_match(other_bits: int) -> None:
    others = np.uint32(other_bits)
    assert compare(SONG, (SONG & ~others) | (OTHER_SONG & others), 0) is None


@pytest.mark.parametrize(("flips", "is_match"), [((0x03, 0x01), True), ((0x03, 0x03), False)])
def test_an_even_error_has_a_limit(flips: tuple[int, int], is_match: bool) -> None:
    low, high = (np.uint32(flip * 0x0101) for flip in flips)
    # One and a half, or two, of eight bits of each quarter and second.
    pattern = np.array([low << np.uint32(16) | high, high << np.uint32(16) | low], np.uint32)
    assert (compare(SONG, SONG ^ np.tile(pattern, 900), 0) is not None) == is_match


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_shared_intro_is_no_match(share: float) -> None:
    intro = int(share * 300)
    first, second = SONG[:300], np.concatenate([SONG[:intro], OTHER_SONG[: 300 - intro]])
    assert compare(first, second, 0) is None


def test_a_song_with_another_end_is_no_match() -> None:
    assert compare(SONG[:300], np.concatenate([SONG[:280], OTHER_SONG[:20]]), 0) is None


def test_a_voice_in_some_seconds_is_no_match() -> None:
    song = SONG[:600].copy()
    song[200:220] = flipped(song[200:220], 0.45)
    assert compare(SONG[:600], song, 0) is None


@pytest.mark.parametrize(("words", "bad_seconds"), [(95, 0), (105, 1), (1_090, 1), (1_100, 2)])
def test_a_long_copy_may_have_some_bad_seconds(words: int, bad_seconds: int) -> None:
    copy = flipped(SONG[:words], 0.05)
    for start in range(0, 20 * bad_seconds, 20):
        copy[start : start + 10] = OTHER_SONG[start : start + 10]
    match = compare(SONG[:words], copy, 0)
    assert match is not None
    assert match.kind == "same"
    copy[-20:-10] = OTHER_SONG[-20:-10]
    assert compare(SONG[:words], copy, 0) is None


@pytest.mark.parametrize(("words", "kind"), [(810, "same"), (790, "contained")])
def test_the_same_recordings_overlap_nearly_all(words: int, kind: str) -> None:
    match = compare(SONG[:1_000], SONG[:words], 0)
    assert match is not None
    assert match.kind == kind


def test_an_overlap_of_both_ends_is_no_match() -> None:
    assert compare(SONG[:1_000], SONG[300:1_300], -300) is None


@pytest.mark.parametrize(("words", "is_match"), [(MIN_OVERLAP, True), (MIN_OVERLAP - 1, False)])
def test_a_match_has_a_smallest_overlap(words: int, is_match: bool) -> None:
    assert (compare(SONG[:words], SONG[:words], 0) is not None) == is_match


def test_masked_words_do_not_count() -> None:
    padded = np.concatenate([NOTHING, SONG[:200], NOTHING])
    assert compare(padded, SONG[:200], -1_800) == Match("same", -1_800, 200, 0.0)
    assert compare(padded, padded, 0) == Match("same", 0, 200, 0.0)


def test_words_masked_in_one_recording_do_not_count() -> None:
    copy = SONG[:200].copy()
    copy[::10] = 0
    assert compare(SONG[:200], copy, 0) == Match("same", 0, 180, 0.0)
    assert compare(copy, SONG[:200], 0) == Match("same", 0, 180, 0.0)


@pytest.mark.parametrize("offset", [-3, 0, 3])
def test_the_offset_itself_is_the_best_of_equal_ones(offset: int) -> None:
    words = np.full(300, 0x12345678, np.uint32)
    match = compare(words, words, offset)
    assert match is not None
    assert match.offset == offset


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NOTHING, NOTHING),
        (NOTHING, SONG),
        (SONG[:1], SONG[:1]),
        (SONG[:0], SONG),
        (SONG[:0], SONG[:0]),
    ],
)
@pytest.mark.parametrize("offset", [-2_000, -1, 0, 1, 2_000])
def test_too_few_informative_words_are_no_match(first: Words, second: Words, offset: int) -> None:
    assert compare(first, second, offset) is None
