"""Tests of values that are looked up on the disk."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.keyed_values import keyed_values
from melmill.transforms.core.errors import CatalogueError


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_every_key_gives_its_value(pairs: dict[str, str], other: str) -> None:
    with keyed_values(pairs.items(), "text") as values:
        assert {key: values.get(key) for key in pairs} == pairs
        assert values.get(other) == pairs.get(other)


def test_a_key_twice_is_named_with_its_file() -> None:
    with (
        pytest.raises(CatalogueError, match=r"/data/text has the id 'a' twice; remove one"),
        keyed_values([("a", "1"), ("b", "2"), ("a", "1")], "/data/text"),
    ):
        pass


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        with keyed_values(((f"{i:09}", "x" * 100) for i in range(number)), "text") as values:
            assert values.get(f"{number - 1:09}") == "x" * 100
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak_bytes

    assert peak(20_000) < 1.5 * peak(2_000) + 2**16
