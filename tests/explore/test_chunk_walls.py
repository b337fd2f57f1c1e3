"""Samples of chunks: all of them in the end, each once, and evenly from the start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.explore.chunk_walls import spread


@given(st.integers(1, 5000), st.integers(1, 700))
def test_pages_show_every_number_once(total: int, page: int) -> None:
    pages = [spread(first, page, total) for first in range(0, total, page)]
    assert sorted(number for numbers in pages for number in numbers) == list(range(total))
    assert spread(len(pages) * page, page, total) == []


@given(st.integers(100_000, 10**9), st.integers(10, 100))
def test_the_first_numbers_are_spread_evenly(total: int, number: int) -> None:
    numbers = sorted(spread(0, number, total))
    gaps = [b - a for a, b in zip(numbers, [*numbers[1:], total], strict=True)]
    # With steps of exactly the golden ratio, no gap is longer than twice the mean.
    assert max(gaps) <= 3 * total / number
