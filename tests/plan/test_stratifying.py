"""New recordings of a class fill the split that is furthest behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.plan.recordings import PlannedRecording, plan_recording
from melmill.transforms.plan.splits import SplitSpec, split_unit
from melmill.transforms.plan.stratifying import NewUnit, class_of_unit, divide_class, in_split
from tests.plans import FEATURES, planned, probed

RULE = SplitSpec(by="recording", stratify="genre")
NAMES = st.sets(st.text("abcdef", min_size=1, max_size=6), max_size=60)


def new(names: Any) -> list[NewUnit]:
    return [NewUnit(name, 1) for name in names]


@given(NAMES, st.randoms(use_true_random=False))
def test_the_order_of_the_units_has_no_influence(names: set[str], shuffled: Any) -> None:
    units = new(sorted(names))
    expected = dict(divide_class(units, {}, RULE))
    shuffled.shuffle(units)
    assert dict(divide_class(units, {}, RULE)) == expected


@given(NAMES, NAMES)
def test_each_split_has_its_share_of_the_class_to_within_one(
    names: set[str], later: set[str]
) -> None:
    numbers = Counter(dict(divide_class(new(names), {}, RULE)).values())
    numbers += Counter(dict(divide_class(new(later - names), numbers, RULE)).values())
    for split, share in RULE.fractions:
        assert abs(numbers[split] - share * numbers.total()) <= 1


def test_the_split_that_is_furthest_behind_is_filled_first() -> None:
    behind = {"train": 80, "validation": 10, "test": 4}
    splits = [split for _, split in divide_class(new("abcdefg"), behind, RULE)]
    assert splits[:5] == ["test"] * 5
    assert "train" in splits[5:]


def test_another_seed_gives_another_order() -> None:
    units = new([str(number) for number in range(50)])
    other = replace(RULE, seed=1)
    assert dict(divide_class(units, {}, RULE)) != dict(divide_class(units, {}, other))


def test_a_file_of_several_segments_counts_with_all_of_them() -> None:
    halves = SplitSpec(fractions=(("a", 0.5), ("b", 0.5)), stratify="genre")
    units = [NewUnit("long", 9), *new(str(n) for n in range(9))]
    splits = dict(divide_class(units, {}, halves))
    with_long = [unit for unit in splits if splits[unit] == splits["long"]]
    assert len(with_long) <= 2


def labelled(name: str, genre: str, chunks: int = 1) -> PlannedRecording:
    recording = replace(planned(name).probed.recording, labels=(("genre", genre),))
    song = planned(name, chunks=chunks)
    return replace(song, probed=replace(song.probed, recording=recording))


def test_the_class_of_a_file_is_that_of_its_first_segment_with_rows() -> None:
    members = [labelled("a.wav", "rock"), labelled("b.wav", "jazz"), labelled("c.wav", "pop", 0)]
    first = min(members[:2], key=lambda member: member.probed.recording.recording_id)
    expected = repr(dict(first.probed.recording.labels)["genre"])
    assert class_of_unit(members, "genre") == class_of_unit(members[::-1], "genre") == expected


def test_a_split_of_the_catalogue_that_does_not_count_leaves_the_unit() -> None:
    given = replace(planned("a.wav").probed.recording, split="test")
    own = replace(given, split=None)
    assert split_unit(given, RULE) == split_unit(own, RULE) != ""
    assert split_unit(given, replace(RULE, by="auto")) == ""


def test_a_recording_that_is_planned_again_stays_in_its_split() -> None:
    song = plan_recording(probed("a.wav"), FEATURES, RULE, 1e9)
    other = next(split for split, _ in RULE.fractions if split != song.split)
    again = plan_recording(in_split(song, other).probed, FEATURES, RULE, 1e9)
    assert again.split == other
    without = replace(RULE, stratify=None)
    assert plan_recording(in_split(song, other).probed, FEATURES, without, 1e9).split == song.split
