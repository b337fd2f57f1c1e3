"""Mixtures of sources: exact shares, every row of a source once in each of its epochs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.mixing import PATTERN_ROWS, Mixture, Source, mixing_pattern
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.orders import ORDERS, all_rows, rows_at


def mixed(rows: tuple[int, ...], weights: tuple[float, ...], order: RowOrder) -> Mixture:
    sources = [Source(Blocks((n,), 4), None, w) for n, w in zip(rows, weights, strict=True)]
    return Mixture(tuple(sources), order)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6), st.integers(8, 64))
def test_a_pattern_has_each_source_in_proportion_and_evenly(weights, rows):
    pattern = mixing_pattern(weights, rows)
    for source, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(np.count_nonzero(pattern == source) - share * rows) < 1
        seen = np.cumsum(pattern == source)
        assert np.abs(seen - share * np.arange(1, rows + 1)).max() <= len(weights)


@given(ORDERS, st.integers(1, 4), st.integers(1, 4))
def test_an_epoch_of_a_source_has_each_row_once(order, first, second):
    mixture = mixed((30, 9), (first, second), order)
    rows_of: dict[tuple[int, int], list[int]] = {}
    begun: dict[tuple[int, int], int] = {}
    for epoch in range(2):
        positions = np.arange(mixture.rows)
        places = mixture.places(epoch, positions)
        rows = rows_at(mixture, epoch, positions)
        keys = zip(
            *(a.tolist() for a in (places.sources, places.epochs, places.lanes)), strict=True
        )
        for (source, part, lane), (_, row) in zip(keys, rows, strict=True):
            rows_of.setdefault((source, part), []).append(row)
            begun[source, lane] = max(part, begun.get((source, lane), 0))
    for (source, part), rows in rows_of.items():
        assert len(set(rows)) == len(rows)
        # A lane that has begun the next epoch has given all of its rows.
        if part < min(last for (s, _), last in begun.items() if s == source):
            assert sorted(rows) == list(range((30, 9)[source]))


def test_shares_are_exact_over_a_pattern():
    mixture = mixed((6000, 500), (0.75, 0.25), RowOrder(lanes=1))
    places = mixture.places(0, np.arange(PATTERN_ROWS))
    assert np.bincount(places.sources).tolist() == [3072, 1024]
    assert places.epochs[places.sources == 1].max() == 2  # 500 rows, given twice and more


def test_a_second_epoch_of_the_mixture_goes_on_where_the_first_ended():
    mixture = mixed((80, 20), (1, 1), RowOrder(lanes=2, turn_rows=4, window_rows=8))
    first, second = (Counter(all_rows(mixture, epoch)) for epoch in (0, 1))
    large = [row for source, row in first | second if source == 0]
    assert sorted(large) == list(range(80))


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_wrong_weight_is_refused(weight):
    with pytest.raises(ConfigError, match=f"source 1 has the weight {weight}"):
        mixed((10, 10), (1, weight), RowOrder(lanes=1))


def test_a_weight_too_small_to_give_any_row_is_refused():
    mixed((10, 10), (PATTERN_ROWS - 1, 1), RowOrder(lanes=1))
    with pytest.raises(ConfigError, match="source 1 has the weight 1 of 10001, and would get no"):
        mixed((10, 10), (10_000, 1), RowOrder(lanes=1))


def test_a_source_that_is_too_small_for_the_lanes_is_refused():
    with pytest.raises(ConfigError, match="source 1 has 3 rows, too few for the 8 lanes"):
        mixed((10, 3), (1, 1), RowOrder())
