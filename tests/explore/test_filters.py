"""Filters: what the terms of an address mean."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.explore.filters import Field, Filter, read_filter, term
from melmill.transforms.core.errors import ConfigError

ROWS = Field("rows", "number", "rows")
CODEC = Field("codec", "text", "codec")
DEAD = Field("channels.dead", "truth", "dead")
FIELDS = {field.name: field for field in (ROWS, CODEC, DEAD)}


def passing(shown: Filter) -> list[int]:
    """Return the numbers of the rows that pass a filter."""
    condition = shown.condition(FIELDS, {})
    return [
        number
        for (number,) in duckdb.connect()
        .execute(
            "SELECT number FROM (VALUES (1, 10, 'mp3', true), (2, 20, 'flac', false), "
            "(3, NULL, NULL, NULL)) t(number, rows, codec, dead) "
            f"WHERE {condition.sql} ORDER BY number",
            list(condition.values),
        )
        .fetchall()
    ]


@pytest.mark.parametrize(
    ("terms", "numbers"),
    [
        ([], [1, 2, 3]),
        ([("rows", "10")], [1]),
        ([("rows", "10..20")], [1]),
        ([("rows", "10..")], [1, 2]),
        ([("rows", "..20")], [1]),
        ([("rows", "..")], [1, 2]),
        ([("rows", "(none)")], [3]),
        ([("codec", "mp3"), ("codec", "flac")], [1, 2]),
        ([("codec", "mp3"), ("rows", "20..")], []),
        ([("channels.dead", "false")], [2]),
    ],
)
def test_a_recording_passes_if_it_meets_a_term_of_each_field(
    terms: list[tuple[str, str]], numbers: list[int]
) -> None:
    assert passing(Filter(tuple(terms))) == numbers


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (ROWS, "many", r"rows: 'many': must be a number, a range such as 1\.\.2"),
        (ROWS, "1..x", "rows: 'x': must be a number"),
        (DEAD, "yes", r"channels\.dead: 'yes': must be true, false or \(none\)"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused(
    field: Field, value: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        term(field, value)


def test_an_unknown_field_is_refused_with_the_likely_one() -> None:
    with pytest.raises(ConfigError, match="'codek': the dataset has no such column; did you"):
        Filter((("codek", "mp3"),)).condition(FIELDS, {})


def test_a_term_that_is_there_already_is_removed() -> None:
    assert Filter().having("codec", "mp3").having("codec", "mp3") == Filter()


@given(st.lists(st.tuples(st.sampled_from(["codec", "tag.artist"]), st.text(min_size=1))))
def test_the_address_keeps_every_filter(terms: list[tuple[str, str]]) -> None:
    from urllib.parse import parse_qsl

    shown = read_filter(terms, [])
    assert read_filter(parse_qsl(shown.query, keep_blank_values=True), []) == shown


def test_too_many_terms_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 201 terms: at most 200"):
        read_filter([("codec", str(number)) for number in range(201)], [])


@given(st.text(min_size=1))
def test_a_text_is_never_read_as_sql(value: str) -> None:
    if value != "(none)":
        condition = term(CODEC, value)
        assert condition.sql == "codec = ?"
        assert condition.values == (value,)
