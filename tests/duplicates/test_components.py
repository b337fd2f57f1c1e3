"""Test that groups are the connected components of pairs."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.duplicates.components import group

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40)


def slow_groups(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Return the smallest member by member, lowered until nothing changes."""
    smallest = {member: member for pair in pairs for member in pair}
    for _ in pairs:
        for first, second in pairs:
            smallest[first] = smallest[second] = min(smallest[first], smallest[second])
    return smallest


@given(PAIRS)
def test_members_have_the_smallest_member_that_pairs_lead_to(pairs: list[tuple[int, int]]) -> None:
    assert group(pairs) == slow_groups(pairs)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(
    pairs: list[tuple[int, int]], generator: random.Random
) -> None:
    swapped = [
        (second, first) if generator.random() < 0.5 else (first, second) for first, second in pairs
    ]
    generator.shuffle(swapped)
    assert group(swapped) == group(pairs)


def test_members_may_be_texts() -> None:
    assert group([("b", "a"), ("d", "c")]) == {"a": "a", "b": "a", "c": "c", "d": "c"}


def test_no_pairs_make_no_groups() -> None:
    assert group(list[tuple[int, int]]()) == {}


def test_a_long_chain_is_a_group() -> None:
    chain = [(i, i + 1) for i in reversed(range(100_000))]
    assert set(group(chain).values()) == {0}
