"""Tests of cells: which type a column gets, and how its values are converted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.cells import (
    CONVERSION_ERRORS,
    column_type,
    from_arrow,
    from_json,
    from_text,
    json_type,
    text_type,
)


@given(st.lists(st.integers(-(10**15) + 1, 10**15 - 1), min_size=1))
def test_whole_numbers_in_text_are_taken_for_what_they_are(values: list[int]) -> None:
    text = [str(value) for value in values]
    assert text_type(text) == "int64"
    assert from_text(text, "int64", False) == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_in_text_are_read_exactly(values: list[float]) -> None:
    text = [format(value, ".17e") for value in values]
    assert text_type(text) == "double"
    assert from_text(text, "double", False) == values


@given(st.lists(st.text(), min_size=1))
def test_any_column_of_text_fits_the_type_that_it_is_taken_for(values: list[str]) -> None:
    assert len(from_text(values, text_type(values), False)) == len(values)


@pytest.mark.parametrize("value", ["007", "1_000", "0x1f", "inf", "1234567890123456", "1,5", "٣"])
def test_text_that_would_not_survive_as_a_number_stays_text(value: str) -> None:
    assert text_type(["1", value]) == "string"


@pytest.mark.parametrize("value", ["007", "2.5", "x"])
def test_text_that_contradicts_its_column_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        from_text(["1", value], "int64", False)


def test_a_declared_type_is_read_generously() -> None:
    assert from_text(["007", " 8 ", "+9", "NA"], "int64", True) == [7, 8, 9, None]
    assert from_text(["1", "TRUE", "0", ""], "bool", True) == [True, True, False, None]
    assert from_text([" 01.50 "], "double", True) == [1.5]


@pytest.mark.parametrize(
    ("type_name", "value"), [("int64", "1.5"), ("int64", "9" * 19), ("double", "a"), ("bool", "2")]
)
def test_a_declared_type_does_not_accept_every_value(type_name: str, value: str) -> None:
    with pytest.raises(ValueError):
        from_text([value], type_name, True)


def test_words_for_nothing_are_text_among_text() -> None:
    assert from_text(["NA", "DE", ""], "string", False) == ["NA", "DE", None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2], "int64"),
        ([1, 2.5], "double"),
        ([True, None], "bool"),
        (["2020-01-01"], "string"),
        ([[1], None, [2.5, None]], "list<double>"),
        ([[]], "list<string>"),
        ([1, "a"], "a mixture of kinds"),
        ([1, True], "a mixture of kinds"),
        ([1.5, True], "a mixture of kinds"),
        ([[1.5], [True]], "a mixture of kinds"),
        ([[1], 1], "a mixture of kinds"),
        ([[[1]]], "list<list<int64>>"),
        ([{}], "struct<>"),
    ],
)
def test_json_is_taken_for_what_it_is(values: list[Any], expected: str) -> None:
    assert json_type(values) == expected


def test_json_becomes_python() -> None:
    assert from_json([[1, None], None, []], "list<int64>", False) == [(1, None), None, ()]
    assert from_json([1, 2.5, None], "double", False) == [1.0, 2.5, None]


def test_json_declared_as_text_may_be_anything() -> None:
    values = ["a", 7, 1.5, True, None, [1]]
    assert from_json(values, "string", True) == ["a", "7", "1.5", "true", None, "[1]"]


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("string", 7),
        ("string", "\ud800"),
        ("int64", 1.5),
        ("int64", "7"),
        ("int64", True),
        ("int64", 2**63),
        ("double", True),
        ("double", "1.5"),
        ("bool", 1),
        ("list<string>", "ab"),
        ("list<double>", [True]),
        ("int64", [1]),
    ],
)
def test_json_that_contradicts_its_column_is_refused(type_name: str, value: object) -> None:
    with pytest.raises(CONVERSION_ERRORS):
        from_json([value], type_name, False)


@pytest.mark.parametrize(
    ("array", "type_name", "expected"),
    [
        (pa.array(["a", None]).dictionary_encode(), "string", ["a", None]),
        (pa.array(["a"], pa.large_string()), "string", ["a"]),
        (pa.array(["a"], pa.string_view()), "string", ["a"]),
        (pa.array([1], pa.uint8()), "int64", [1]),
        (pa.array([1.5], pa.float16()), "double", [1.5]),
        (pa.array([True]), "bool", [True]),
        (pa.nulls(1), "string", [None]),
        (pa.array([[1], None], pa.large_list(pa.int8())), "list<int64>", [(1,), None]),
        (pa.array([["a"]], pa.list_(pa.string(), 1)), "list<string>", [("a",)]),
        (pa.array([dt.date(2020, 1, 2)]), "string", ["2020-01-02"]),
        (pa.array([dt.datetime(2020, 1, 2)], pa.timestamp("s", "UTC")), "string",
         ["2020-01-02 00:00:00Z"]),
    ],
)  # fmt: skip
def test_arrow_columns_are_normalised(array: Any, type_name: str, expected: list[Any]) -> None:
    assert column_type(array.type) == type_name
    assert from_arrow(array, type_name, False) == expected


@pytest.mark.parametrize(
    "arrow",
    [
        pa.binary(),
        pa.struct([("a", pa.int8())]),
        pa.list_(pa.list_(pa.int8())),
        pa.map_(pa.string(), pa.int8()),
        pa.decimal128(5),
        pa.time32("s"),
    ],
)
def test_other_arrow_types_are_no_label_types(arrow: Any) -> None:
    assert column_type(arrow) not in ("string", "int64", "double", "bool")


def test_a_cast_that_would_lose_something_is_refused() -> None:
    with pytest.raises(CONVERSION_ERRORS):
        from_arrow(pa.array([2**63], pa.uint64()), "int64", False)
    with pytest.raises(CONVERSION_ERRORS):
        from_arrow(pa.array([1.5]), "int64", True)
