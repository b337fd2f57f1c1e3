"""Rows in proportion to the weights of their classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.mixing import Mixture, Source
from melmill.transforms.loading.repeats import Repeats, repeats_by_class
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.orders import ORDERS, SHARDS, all_rows

CLASSES = st.lists(st.integers(0, 2), min_size=1, max_size=60)


def weighted(classes: list[int], weights: dict[str, float], *key: int) -> Repeats:
    return repeats_by_class(np.array(classes, np.int32), ["a", "b", "c"], weights).of_epoch(*key)


@given(CLASSES, st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]), min_size=3, max_size=3), ORDERS)
def test_rows_and_sums_agree_and_an_epoch_keeps_its_length(classes, weights, order):
    given = dict(zip("abc", weights, strict=True))
    if not any(given["abc"[i]] for i in classes):
        return
    repeats = weighted(classes, given, order.seed or 0)
    rows = repeats.rows(np.arange(repeats.total))
    assert abs(repeats.total - len(classes)) <= 1
    assert (np.diff(rows) >= 0).all()
    before = repeats.before(np.arange(len(classes) + 1))
    assert np.diff(before).tolist() == np.bincount(rows, minlength=len(classes)).tolist()
    assert not [i for i in rows if not given["abc"[classes[i]]]]


def test_rare_classes_come_as_often_as_frequent_ones_over_a_hundred_epochs():
    classes = [0] * 90 + [1] * 9 + [2] * 1
    counts = np.zeros(100, int)
    for epoch in range(100):
        repeats = weighted(classes, {"a": 1, "b": 1, "c": 1}, epoch)
        in_epoch = np.bincount(repeats.rows(np.arange(repeats.total)), minlength=100)
        by_class = [in_epoch[:90].sum(), in_epoch[90:99].sum(), in_epoch[99]]
        assert np.abs(np.array(by_class) - 100 / 3).max() <= 1
        counts += in_epoch
    # Each row of a class comes equally often; the standard deviation is at most 5.
    assert np.abs(counts[:90] - 100 / 2.7).max() < 25
    assert np.abs(counts[90:99] - 100 / 0.27).max() < 25


@pytest.mark.parametrize("rare", [1, 5, 99])
def test_every_row_of_every_lane_occurs_sooner_or_later(rare):
    classes = np.array([0] * 95 + [1] * 5, np.int32)[np.arange(1000) * 7 % 100]
    whole = repeats_by_class(classes, ["a", "b"], {"a": 1, "b": rare})
    for start in range(0, 1000, 125):
        lane = whole.of_ranges(np.array([start]), np.array([start + 125]))
        seen = np.zeros(125, int)
        for epoch in range(600):
            repeats = lane.of_epoch(epoch)
            rows = repeats.rows(np.arange(repeats.total))
            assert len(rows) == lane.total
            seen += np.bincount(rows, minlength=125)
        each = np.diff(lane.sums(np.arange(126))) / lane.sums(np.array([125])) * lane.total * 600
        # The standard deviation of a row's number is below the root of what is expected.
        assert (np.abs(seen - each) < 6 * np.sqrt(each) + 1).all()
        assert seen.min() > 0


def test_counts_of_a_billion_rows_do_not_overflow():
    borders = np.array([0, 10**9], np.int64)
    repeats = Repeats(borders, np.array([(1 << 24) + 5], np.int64)).of_epoch(3)
    numbers = np.array([0, 1, 10**6, repeats.total - 1])
    rows = repeats.rows(numbers)
    assert (rows >= 0).all()
    assert (rows < 10**9).all()
    assert repeats.before(rows).tolist() == numbers.tolist()
    assert repeats.before(np.array([10**9])).tolist() == [repeats.total]


@given(SHARDS, ORDERS, st.integers(0, 2))
def test_the_order_gives_each_row_as_often_as_its_weight_says(shards, order, epoch):
    classes = [row % 3 for row in range(sum(shards))]
    repeats = repeats_by_class(np.array(classes, np.int32), ["a", "b", "c"], {"a": 1, "c": 3})
    source = Source(Blocks(shards, 4), repeats)
    mixture = Mixture((source,), order)
    assert abs(mixture.rows - repeats.total) <= order.lanes
    rows = sorted(row for _, row in all_rows(mixture, epoch))
    counts = np.bincount(rows, minlength=sum(shards))
    shares = {0: 1, 1: 0, 2: 3 if 2 in classes else 0}
    each = [sum(shards) * shares[i] / sum(shares.values()) / classes.count(i) for i in classes]
    # At most one more or less; and the last row of a lane may be cut, to give whole lengths.
    assert all(abs(count - exact) < 2 for count, exact in zip(counts, each, strict=True))
    assert sum(abs(counts - each) > 1 + 1e-3) <= order.lanes


def test_blocks_without_a_chosen_row_are_not_read():
    classes = np.repeat(np.array([0, 1], np.int32), 50)
    repeats = repeats_by_class(classes, ["a", "b"], {"b": 1})
    source = Source(Blocks((50, 50), 10), repeats)
    order = Mixture((source,), RowOrder(window_rows=1000, lanes=1)).lane_order(0, 0, 0)
    assert order.window(0).blocks.tolist() == [5, 6, 7, 8, 9]


@given(
    CLASSES, st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True), st.integers(0, 3)
)
def test_the_repeats_of_ranges_are_those_of_their_rows(classes, borders, key):
    whole = weighted(classes, {"a": 1, "b": 0.5, "c": 3}) if set(classes) else None
    borders = sorted(min(border, len(classes)) for border in borders)
    starts, ends = (np.array(borders[i::2][: len(borders) // 2]) for i in (0, 1))
    starts, ends = starts[starts < ends], ends[starts < ends]
    own = whole.of_ranges(starts, ends)
    rows = [row for pair in zip(starts, ends, strict=True) for row in range(*pair)]
    each = np.diff(whole.sums(np.arange(len(classes) + 1)))
    if rows:
        assert np.diff(own.sums(np.arange(len(rows) + 1))).tolist() == each[rows].tolist()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"d": 1}, "there is no class 'd'; there are: a, b, c"),
        ({"a": -1}, "'a' has the weight -1"),
        ({"a": float("nan")}, "'a' has the weight nan"),
        ({"a": float("inf")}, "'a' has the weight inf"),
        ({"a": 0}, "no class with rows has a positive weight"),
        ({"c": 1}, "no class with rows has a positive weight"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        weighted([0, 1], weights)
