"""Ranges of bytes in requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.explore.byte_ranges import NotSatisfiableError, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=990-5000", (990, 1000)),
        ("bytes=-10", (990, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("bytes=100-", (100, 400)),
        ("Bytes = 900-", (900, 1000)),
    ],
)
def test_a_range_is_read(header: str, expected: tuple[int, int]) -> None:
    assert parse_range(header, 1000, 300) == expected


@pytest.mark.parametrize(
    "header", [None, "", "bytes=-", "bytes=5-4", "bytes=0-1,4-5", "lines=0-1", "bytes=٠-١"]
)
def test_what_is_no_single_range_gives_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 1000, 300) is None


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", f"bytes={10**30}-"]
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(NotSatisfiableError):
        parse_range(header, 1000, 300)


@given(st.text(alphabet="bytes=-0123456789 ,", max_size=40), st.integers(1, 10**12))
def test_a_range_always_lies_within_the_file(text: str, size: int) -> None:
    try:
        found = parse_range(f"bytes={text}", size, 1 << 22)
    except NotSatisfiableError:
        return
    assert found is None or 0 <= found[0] < found[1] <= size
