"""Splits that are empty, or far from the shares that the recipe asks for."""

from __future__ import annotations

import pytest

from melmill.transforms.plan.split_shares import share_warnings, too_few

ASKED = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_an_empty_split_is_named_first() -> None:
    warnings = share_warnings(ASKED, {"train": 4, "validation": 2})
    assert warnings == [
        "split test is empty: split.fractions asks for 10.0% of 6 recordings",
        "split train has 66.7% of 6 recordings: split.fractions asks for 80.0%",
        "split validation has 33.3% of 6 recordings: split.fractions asks for 10.0%",
    ]


@pytest.mark.parametrize(
    ("train", "is_far"), [(69, True), (70, False), (80, False), (90, False), (91, True)]
)
def test_a_large_share_may_miss_by_half_of_what_remains(train: int, is_far: bool) -> None:
    warnings = share_warnings({"train": 0.8, "test": 0.2}, {"train": train, "test": 100 - train})
    assert any(warning.startswith("split train has") for warning in warnings) == is_far


@pytest.mark.parametrize(("test", "is_far"), [(4, True), (5, False), (15, False), (16, True)])
def test_a_small_share_may_miss_by_half(test: int, is_far: bool) -> None:
    numbers = {"train": 90 - test, "validation": 10, "test": test}
    warnings = share_warnings(ASKED, numbers)
    assert any(warning.startswith("split test has") for warning in warnings) == is_far


def test_splits_of_the_catalogue_and_of_nothing_are_not_judged() -> None:
    assert share_warnings({}, {"a": 1, "b": 99}) == []
    assert share_warnings(ASKED, {}) == []


def test_a_single_split_has_everything() -> None:
    assert share_warnings({"all_of_it": 1.0}, {"all_of_it": 7}) == []


def test_each_split_needs_its_recordings() -> None:
    numbers = {"train": 9, "validation": 1}
    assert too_few(ASKED, numbers, 1) == (
        "split.min_recordings is 1, and the split test has 0 recordings with rows"
    )
    assert too_few(ASKED, numbers, 2) == (
        "split.min_recordings is 2, and the split validation has 1 recording with rows and the "
        "split test has 0 recordings with rows"
    )
    assert too_few({}, numbers, 1) == too_few(ASKED, numbers, 0) == ""
    assert "validation has 1 recording" in too_few({}, numbers, 2)
