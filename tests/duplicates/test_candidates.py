"""Test that copies become candidates at their offset, and that no key costs much."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.duplicates.candidates import (
    MAX_OFFSETS,
    MAX_VOTES_OF_POSTING,
    POSTING,
    VOTE,
    key_bits,
    merge_votes,
    pick,
    postings,
    vote,
)
from tests.duplicates.prints import Words, flipped, masked, random_print

LARGEST = (1 << 64) - 1


def posting_arrays(keys: int, recordings: int, rows: int) -> st.SearchStrategy[np.ndarray]:
    row = st.tuples(
        st.integers(0, keys).map(lambda key: key * 0x1234567),
        st.sampled_from([*range(recordings), LARGEST]),
        st.integers(0, 20),
    )
    return st.lists(row, max_size=rows).map(lambda rows: np.array(rows, POSTING))


def vote_arrays() -> st.SearchStrategy[np.ndarray]:
    pair = st.sampled_from([(1, 2), (1, LARGEST), (7, LARGEST)])
    row = st.tuples(pair, st.integers(-4, 4), st.integers(1, 5))
    return st.lists(row, max_size=30).map(
        lambda rows: np.array([(*pair, offset, votes) for pair, offset, votes in rows], VOTE)
    )


def slow_votes(rows: np.ndarray) -> dict[tuple[int, int, int], int]:
    """Return the votes of all pairs of postings of a key."""
    by_key = defaultdict(list)
    for key, recording, position in rows.tolist():
        by_key[key].append((recording, position))
    pairs = (pair for group in by_key.values() for pair in combinations(sorted(group), 2))
    return Counter((a, b, second - first) for (a, first), (b, second) in pairs if a != b)


def as_dict(votes: np.ndarray) -> dict[tuple[int, int, int], int]:
    return {(first, second, offset): count for first, second, offset, count in votes.tolist()}


def found(*prints: Words, extra_bits: int = 8) -> list[tuple[int, ...]]:
    rows = [postings(i, words, extra_bits) for i, words in enumerate(prints)]
    return pick(vote(np.concatenate(rows))).tolist()


@given(posting_arrays(keys=20, recordings=5, rows=MAX_VOTES_OF_POSTING))
def test_votes_are_those_of_all_pairs_if_groups_are_small(rows: np.ndarray) -> None:
    votes = vote(rows)
    assert as_dict(votes) == slow_votes(rows)
    assert votes.dtype == VOTE
    assert np.all(votes["first"] < votes["second"])


@given(posting_arrays(keys=3, recordings=40, rows=80), st.integers(0, 99))
def test_the_order_of_postings_does_not_matter(rows: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(rows)
    assert vote(shuffled).tolist() == vote(rows).tolist()


@given(posting_arrays(keys=8, recordings=20, rows=80), st.integers(2, 4))
def test_votes_of_key_ranges_add_up(rows: np.ndarray, parts: int) -> None:
    divided = [vote(rows[rows["key"] % parts == part]) for part in range(parts)]
    assert merge_votes(divided).tolist() == vote(rows).tolist()


@given(st.lists(vote_arrays(), max_size=4))
def test_merged_votes_are_sums(arrays: list[np.ndarray]) -> None:
    sums: Counter[tuple[int, int, int]] = Counter()
    for array in arrays:
        for first, second, offset, votes in array.tolist():
            sums[first, second, offset] += votes
    merged = merge_votes(arrays)
    assert as_dict(merged) == sums
    assert list(as_dict(merged)) == sorted(sums)


@given(st.lists(vote_arrays(), max_size=4))
def test_picked_offsets_have_the_votes_beside_them(arrays: list[np.ndarray]) -> None:
    merged = merge_votes(arrays)
    votes = as_dict(merged)
    picked = pick(merged)
    for first, second, offset, count in picked.tolist():
        beside = [votes.get((first, second, offset + step), 0) for step in (-1, 0, 1)]
        assert count == sum(beside) >= 2
        assert (first, second, offset + 1) not in as_dict(picked)
    pairs = Counter((first, second) for first, second, *_ in picked.tolist())
    assert all(count <= MAX_OFFSETS for count in pairs.values())
    # A pair is lost only if no offset and those beside it have two votes.
    sums = {
        (a, b)
        for a, b, o in votes
        if sum(votes.get((a, b, o + step), 0) for step in (-1, 0, 1)) > 1
    }
    assert set(pairs) == sums


def test_the_best_offsets_of_a_pair_are_picked_best_first() -> None:
    votes = np.array([(1, 2, 10 * i, i) for i in range(1, 8)] + [(1, 3, 5, 2)], VOTE)
    assert pick(votes).tolist() == [(1, 2, 70, 7), (1, 2, 60, 6), (1, 2, 50, 5), (1, 3, 5, 2)]


def test_an_offset_between_two_others_is_picked() -> None:
    votes = np.array([(1, 2, 4, 3), (1, 2, 5, 4), (1, 2, 6, 3)], VOTE)
    assert pick(votes).tolist() == [(1, 2, 5, 10)]


def test_a_key_that_everybody_has_costs_a_bounded_number_of_votes() -> None:
    rows = np.array([(5, recording, recording % 7) for recording in range(3_000)], POSTING)
    votes = vote(rows)
    assert votes["votes"].sum() <= MAX_VOTES_OF_POSTING * len(rows)
    assert set(zip(votes["first"].tolist(), votes["second"].tolist(), strict=True)) >= {
        (i, i + 1) for i in range(2_999)
    }


def test_a_copy_is_found_at_its_offset() -> None:
    song = random_print(1_800, 1)
    copy = np.concatenate([random_print(37, 2), flipped(song, 0.15)])
    (best, *_) = found(song, random_print(1_800, 3), copy)
    assert best[:3] == (0, 2, 37)


def test_a_clip_meets_the_keys_of_a_long_recording() -> None:
    song = random_print(18_000, 1)
    (best, *_) = found(flipped(song[9_000:9_200], 0.1), song)
    assert best[:3] == (0, 1, 9_000)


def test_unrelated_recordings_are_no_candidates() -> None:
    assert found(*(random_print(1_800, seed) for seed in range(20)), extra_bits=16) == []


def test_masked_words_have_no_keys() -> None:
    assert len(postings(1, np.zeros(100, np.uint32), 0)) == 0
    assert found(*[masked(random_print(300, 1), 1.0)] * 3) == []
    words = masked(random_print(300, 1), 0.5)
    assert (words[postings(1, words, 4)["position"]] != 0).all()


@pytest.mark.parametrize("extra_bits", [0, 16])
def test_empty_fingerprints_have_no_keys(extra_bits: int) -> None:
    assert postings(1, np.empty(0, np.uint32), extra_bits).dtype == POSTING
    assert found(np.empty(0, np.uint32), np.empty(0, np.uint32), extra_bits=extra_bits) == []


def test_a_word_has_two_keys() -> None:
    rows = postings(LARGEST, np.array([0xFFFF0001], np.uint32), 0)
    assert rows.tolist() == [(0x10000, LARGEST, 0), (0x1FFFF0000, LARGEST, 0)]


def test_a_repeated_word_has_its_first_position() -> None:
    assert set(postings(1, np.repeat(np.uint32(7), 300), 8)["position"].tolist()) == {0}


@given(st.integers(0, 16))
def test_extra_bits_come_from_a_later_word(extra_bits: int) -> None:
    words = random_print(7, 4)
    keys = postings(1, words, extra_bits)["key"].tolist()
    low, high = int(words[6]) & 0xFFFF, int(words[6]) >> 16
    mask = (1 << extra_bits) - 1
    first = int(words[0])
    assert (first & 0xFFFF) << 16 | low & mask in keys
    assert 1 << 32 | (first >> 16) << 16 | high & mask in keys


def test_long_recordings_choose_the_same_keys() -> None:
    song = random_print(5_000, 1)
    whole, part = (
        set(postings(1, words, 6)["key"].tolist()) for words in (song, song[1_000:2_000])
    )
    short = set(postings(1, song[1_000:1_600], 6)["key"].tolist())
    assert len(whole) == pytest.approx(10_000 / 4, rel=0.1)
    assert part <= whole
    assert len(short) > 1_150
    assert len(short & whole) == pytest.approx(1_200 / 4, rel=0.2)


def test_too_many_recordings_for_a_call_are_refused() -> None:
    rows = np.zeros(50_000, POSTING)
    rows["recording"] = np.arange(len(rows))
    rows["position"][0] = (1 << 31) - 1
    with pytest.raises(ValueError, match="Divide the keys into more parts"):
        vote(rows)


@given(st.integers(0, 1 << 50))
def test_keys_are_as_many_as_words(words: int) -> None:
    bits = key_bits(words)
    assert 0 <= bits <= 16
    if 0 < bits < 16:
        assert words <= 1 << (bits + 19) < 2 * words


@settings(max_examples=20)
@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_a_cluster_of_copies_is_connected(copies: int, generator: random.Random) -> None:
    song = random_print(200, 1)
    numbers = generator.sample(range(1 << 20), copies)
    votes = pick(vote(np.concatenate([postings(number, song, 8) for number in numbers])))
    ordered = sorted(numbers)
    pairs = set(zip(votes["first"].tolist(), votes["second"].tolist(), strict=True))
    assert pairs >= set(pairwise(ordered))
