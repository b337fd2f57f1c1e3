"""Test the numbers of recordings and prints, and which match of a pair counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.duplicates.grouping import (
    FoundMatch,
    MatchedRecording,
    one_of_each_pair,
    with_lengths,
    without_doubles,
)
from melmill.transforms.duplicates.match_job import (
    IndexedDataset,
    MatchJob,
    dataset_at,
    has_waveforms,
    place_of,
    recording_number,
    row_of,
    without_kind,
)
from melmill.transforms.store.folders import Store

RECORDING = MatchedRecording(0, "a", "/a", "train", "ok", 1, 1.0, 8000, 1, "5f", None)


@given(st.integers(0, 1 << 20), st.integers(0, (1 << 25) - 1), st.integers(0, 1))
def test_a_number_says_where_a_recording_is(part: int, row: int, dataset: int) -> None:
    place = part << 1 | dataset
    job = MatchJob((IndexedDataset(Store("/x"), "", ()),), 0, waveforms=1)
    places = job.with_waveforms(place)
    numbers = [recording_number(each, row) for each in places]
    assert len({*numbers}) == 2
    for number, each in zip(numbers, places, strict=True):
        assert (place_of(number), row_of(number), dataset_at(each)) == (each, row, dataset)
        assert place_of(np.array([number], np.uint64).astype(np.int64)).tolist() == [each]
        assert without_kind(number) == numbers[0]
    assert [has_waveforms(each) for each in places] == [False, True]


def test_without_short_recordings_no_waveforms_are_read() -> None:
    assert MatchJob((), 0).with_waveforms(6) == [6]


def test_short_recordings_count_as_the_words_that_have_as_many_keys() -> None:
    assert (MatchJob((), 100, 5).size, MatchJob((), 100).size) == (180, 100)


MATCHES: list[FoundMatch] = [
    (1, 2, "same", 0, 9, 0.2),
    (1, 2, "same", 3, 9, 0.1),
    (2, 1, "contained", 0, 9, 0.0),
    (1, 3, "contained", 0, 9, 0.2),
]


def test_a_pair_has_its_best_match_in_any_order() -> None:
    for matches in permutations(MATCHES):
        assert one_of_each_pair(matches) == [MATCHES[1], MATCHES[3]]
    exact: FoundMatch = (1, 2, "exact", 0, 0, 0.0)
    assert without_doubles([*MATCHES, exact]) == [exact, MATCHES[3]]


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [((0.3, 0.44), "same"), ((0.3, 0.46), "contained"), ((3, 4), "same"), ((3, 4.1), "contained")],
)
def test_padding_makes_no_part_of_a_copy(seconds: tuple[float, float], kind: str) -> None:
    recordings = {n: replace(RECORDING, seconds=length) for n, length in enumerate(seconds)}
    assert with_lengths((0, 1, "same", 5, 9, 0.1), recordings)[2] == kind
