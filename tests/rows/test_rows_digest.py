"""Tests of the digest of a recording's rows: it depends on every bit, and not on the shards."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.rows.rows_digest import combine_digests, digest_text, rows_digest


def make_rows(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    mel = np.random.default_rng(seed).standard_normal((number, 4, 5)).astype(np.float32)
    index = np.arange(number, dtype=np.int32)
    return {
        "chunk_index": index // 2,
        "channel": index % 2,
        "start_sample": index.astype(np.int64) // 2 * 700,
        "valid_samples": np.full(number, 700, np.int32),
        "mel": mel,
        "waveform": np.int16(100 * mel[:, 0]),
    }


def digest_of(rows: dict[str, np.ndarray], index: slice | np.ndarray = slice(None)) -> int:
    columns = {name: values[index] for name, values in rows.items()}
    return rows_digest(features=[columns.pop("mel"), columns.pop("waveform")], **columns)


@given(number=st.integers(0, 30), borders=st.lists(st.integers(0, 30), max_size=5), data=st.data())
def test_parts_add_up_to_the_whole_in_any_order(number, borders, data):
    rows = make_rows(number)
    order = np.array(data.draw(st.permutations(range(number))), int)
    parts = np.split(order, sorted(min(border, number) for border in borders))
    assert combine_digests(digest_of(rows, part) for part in parts) == digest_of(rows)


@pytest.mark.parametrize("name", list(make_rows(1)))
def test_every_value_counts(name):
    rows, changed = make_rows(6), make_rows(6)
    flat = changed[name].reshape(-1)
    flat.view(np.uint8)[3 * flat.itemsize] ^= 1  # the lowest bit of a value
    assert digest_of(changed) != digest_of(rows)


def test_a_row_that_is_missing_or_there_twice_is_seen():
    rows = make_rows(6)
    whole = digest_of(rows)
    assert digest_of(rows, slice(5)) != whole
    assert digest_of(rows, np.array([0, 1, 2, 3, 4, 5, 5])) != whole


def test_values_that_change_places_are_seen():
    rows = make_rows(6)
    exchanged = {**rows, "mel": rows["mel"][[1, 0, 2, 3, 4, 5]]}
    assert digest_of(exchanged) != digest_of(rows)


def test_the_sign_of_zero_counts():
    rows = make_rows(1)
    rows["mel"][:] = 0
    assert digest_of({**rows, "mel": -rows["mel"]}) != digest_of(rows)


def test_the_digest_is_what_it_was_when_it_was_first_stored():
    mel = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    expected = hashlib.sha256(struct.pack("<qqqq6f", 3, 1, 2_100, 700, *range(6))).digest()[:16]
    result = rows_digest([3], [1], [2_100], [700], [mel])
    assert digest_text(result) == expected[::-1].hex()


def test_a_number_counts_and_null_is_another_number():
    rows = make_rows(3)
    del rows["mel"], rows["waveform"]
    digests = {
        rows_digest(features=[np.array([0.5, value, 1.5], np.float32)], **rows)
        for value in (0.0, 2.5, np.nan)
    }
    assert len(digests) == 3


def test_memory_layout_and_integer_types_do_not_count():
    rows = make_rows(4)
    strided = {**rows, "mel": np.asfortranarray(rows["mel"])}
    features = [rows.pop("mel"), rows.pop("waveform")]
    listed = {name: values.tolist() for name, values in rows.items()}
    assert digest_of(strided) == rows_digest(**listed, features=features)


def test_other_types_and_columns_of_other_lengths_are_refused():
    rows = make_rows(3)
    with pytest.raises(ValueError, match="float64"):
        digest_of({**rows, "mel": rows["mel"].astype(float)})
    with pytest.raises(ValueError, match="zip"):
        digest_of({**rows, "channel": np.zeros(2, int)})
