"""The order of rows: every row once, the same from any position, and only so many windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.blocks import deal_blocks
from melmill.transforms.loading.lanes import Lanes
from melmill.transforms.loading.randomness import random_numbers, random_order
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.orders import ORDERS, SHARDS, all_rows, one_source, rows_at


@given(SHARDS, ORDERS, st.integers(0, 3))
def test_an_epoch_has_every_row_once(shards, order, epoch):
    rows = all_rows(one_source(shards, order), epoch)
    assert sorted(rows) == [(0, row) for row in range(sum(shards))]


@given(SHARDS, ORDERS, st.integers(0, 2), st.data())
def test_the_row_at_a_position_does_not_depend_on_what_was_asked_before(shards, order, epoch, data):
    expected = all_rows(one_source(shards, order), epoch)
    mixture = one_source(shards, order)
    asked = data.draw(st.lists(st.integers(0, mixture.rows - 1), min_size=1))
    assert rows_at(mixture, epoch, asked) == [expected[position] for position in asked]


def test_epochs_and_seeds_have_orders_of_their_own():
    shards = (20,) * 20
    orders = [
        tuple(all_rows(one_source(shards, RowOrder(seed, 16, 2, 4)), epoch))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert len(set(orders)) == 6


def test_the_order_is_the_same_in_every_release():
    # A saved state names a position: the row at this position must never change.
    order = RowOrder(seed=7, window_rows=8, lanes=2, turn_rows=3)
    rows = [row for _, row in all_rows(one_source((9, 5, 6), order), 1)]
    assert rows == [18, 10, 11, 5, 13, 4, 12, 19, 9, 7, 6, 17, 0, 1, 3, 14, 16, 15, 2, 8]
    assert random_numbers(2, 1, "a").tolist() == [13080418583697767346, 9327825959106812483]


def test_without_a_seed_rows_come_in_the_order_of_files():
    order = RowOrder(seed=None, window_rows=8, lanes=1)
    assert all_rows(one_source((9, 5, 6), order)) == [(0, row) for row in range(20)]


def test_a_window_mixes_blocks_from_the_whole_split():
    shards, order = (400,) * 10, RowOrder(window_rows=256, lanes=1)
    window = one_source(shards, order, 32).lane_order(0, 0, 0).window(0)
    assert len(window.blocks) == 8
    assert len({*(window.blocks // 13)}) >= 4  # shards
    # Neighbours in the window are rarely neighbours in the split.
    assert np.count_nonzero(np.abs(np.diff(window.rows)) == 1) < 10


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7), st.integers(1, 9))
def test_lanes_take_turns_and_have_each_of_their_rows_once(lengths, turn_rows):
    lane, number = Lanes(tuple(lengths), turn_rows).places(np.arange(sum(lengths)))
    turns = [
        [(i, turn * turn_rows + j) for j in range(turn_rows)]
        for turn in range(max(lengths) // turn_rows)
        for i, length in enumerate(lengths)
        if length // turn_rows > turn
    ]
    rests = [
        (i, j)
        for i, length in enumerate(lengths)
        for j in range(length - length % turn_rows, length)
    ]
    expected = [place for turn in turns for place in turn] + rests
    assert list(zip(lane.tolist(), number.tolist(), strict=True)) == expected


@given(st.lists(st.integers(0, 128), min_size=1, max_size=50), st.integers(1, 8), st.integers(0, 2))
def test_each_block_is_dealt_to_one_lane_and_lanes_are_alike(lengths, lanes, seed):
    dealt = deal_blocks(np.array(lengths), lanes, seed)
    assert sorted(np.concatenate(dealt).tolist()) == np.flatnonzero(lengths).tolist()
    rows = [sum(lengths[block] for block in own) for own in dealt]
    assert max(rows) - min(rows) <= max(lengths)


def test_in_a_small_split_every_lane_has_rows():
    mixture = one_source((9, 11), RowOrder(), 128)
    assert [lane.rows > 0 for lane in mixture.parts[0]] == [True] * 8
    assert sorted(all_rows(mixture)) == [(0, row) for row in range(20)]


def test_readers_whose_batches_fit_the_turns_share_no_lane():
    order = RowOrder(window_rows=4, lanes=8, turn_rows=2)
    mixture = one_source((64,) * 4, order)
    batches = np.arange(256).reshape(-1, 4)  # two turns each
    lanes_of = [set(mixture.places(0, batches[i::4].ravel()).lanes.tolist()) for i in range(4)]
    assert lanes_of == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]


def test_random_orders_are_permutations_without_a_bias():
    orders = np.array([random_order(5, 0, i) for i in range(2000)])
    assert (np.sort(orders, axis=1) == np.arange(5)).all()
    counts = [np.bincount(orders[:, place], minlength=5) for place in range(5)]
    assert np.abs(np.array(counts) - 400).max() < 90  # five standard deviations


@pytest.mark.parametrize("wrong", [{"lanes": 0}, {"window_rows": -1}, {"turn_rows": 0}])
def test_an_order_with_a_wrong_number_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is .*; give at least 1"):
        RowOrder(**wrong)
    with pytest.raises(ConfigError, match="seed is -1"):
        RowOrder(seed=-1)
