"""A lookup gives each row the value of its key, and null where there is none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.naming import digest
from melmill.transforms.side_tables.keys import keys_of, texts_of
from melmill.transforms.side_tables.lookups import Lookup

IDS = st.sampled_from([digest(letter) for letter in "abcdefg"])
#: Numbers whose bytes hold zeros in all places.
NUMBERS = st.sampled_from([0, 1, 255, 256, 65_536, 1 << 24, (1 << 31) - 1])
KEY = ("recording_id", "chunk_index", "channel")


def lookup_of(values: dict[tuple[str, int, int], int]) -> Lookup:
    rows = list(values)
    keys = keys_of([pa.array([row[0] for row in rows], pa.string()), *numbers_of(rows)])
    order = np.argsort(keys, kind="stable")
    table = pa.table({"value": pa.array(list(values.values()), pa.int64())})
    return Lookup(KEY, keys[order], table.take(order))


def numbers_of(rows: list[tuple[str, int, int]]) -> list[np.ndarray]:
    return [np.array([row[place] for row in rows], np.int64) for place in (1, 2)]


@given(
    values=st.dictionaries(st.tuples(IDS, NUMBERS, NUMBERS), st.integers(0, 99), max_size=30),
    wanted=st.lists(st.tuples(IDS, NUMBERS, NUMBERS), max_size=30),
)
def test_each_row_gets_its_value(
    values: dict[tuple[str, int, int], int], wanted: list[tuple[str, int, int]]
) -> None:
    wanted = [*wanted, *list(values)[::2]]
    columns = [pa.array([row[0] for row in wanted], pa.string()), *numbers_of(wanted)]
    found = lookup_of(values).of(dict(zip(KEY, columns, strict=True)))
    assert found["value"].to_pylist() == [values.get(key) for key in wanted]


@given(rows=st.lists(st.tuples(IDS, NUMBERS, NUMBERS), max_size=30))
def test_keys_sort_and_read_as_their_columns_do(rows: list[tuple[str, int, int]]) -> None:
    keys = keys_of([pa.array([row[0] for row in rows], pa.string()), *numbers_of(rows)])
    assert [rows[i] for i in np.argsort(keys, kind="stable")] == sorted(rows)
    assert texts_of(keys, "/") == ["/".join(map(str, row)) for row in rows]


def test_an_id_that_is_no_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        keys_of([pa.array(["a.wav"])])


def test_ids_in_several_chunks_are_one_list() -> None:
    ids = [digest(letter) for letter in "abc"]
    chunked = pa.chunked_array([ids[:1], [], ids[1:]], pa.string())
    assert keys_of([chunked]).tolist() == [name.encode() for name in ids]
    assert keys_of([pa.array(ids)[1:]]).tolist() == [name.encode() for name in ids[1:]]
