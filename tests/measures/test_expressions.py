"""Test the expressions that select recordings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.measures.expressions import Selection, selection_of
from melmill.transforms.measures.registry import MEASURES

NUMBERS = [m.name for m in MEASURES.values() if m.type in ("float", "int")]


def refused_by(expression: str, **readings: Any) -> str:
    named = {name.replace("__", "."): value for name, value in readings.items()}
    return Selection(expression).refused_by(lambda name: named[name])


@pytest.mark.parametrize(
    ("expression", "readings", "refused"),
    [
        ("level.peak < -1", {"level__peak": -2.0}, ""),
        ("level.peak < -1", {"level__peak": 0.0}, "level.peak"),
        ("level.peak < -1", {"level__peak": None}, "level.peak"),
        ("level.peak != 3", {"level__peak": None}, "level.peak"),
        ("not channels.dead", {"channels__dead": None}, ""),
        ("not channels.dead", {"channels__dead": True}, "channels.dead"),
        ("channels.dead == false", {"channels__dead": False}, ""),
        ("channels.dead", {"channels__dead": False}, "channels.dead"),
        ("level.peak - level.rms > 6", {"level__peak": 0.0, "level__rms": -9.0}, ""),
        (
            "level.peak - level.rms > 6",
            {"level__peak": 0.0, "level__rms": None},
            "level.peak, level.rms",
        ),
        (
            "level.peak / level.rms > 6",
            {"level__peak": 1.0, "level__rms": 0.0},
            "level.peak, level.rms",
        ),
        ("-level.peak < 1", {"level__peak": None}, "level.peak"),
        ("-3 < level.peak < 0", {"level__peak": -1.0}, ""),
        ("-3 < level.peak < 0", {"level__peak": 1.0}, "level.peak"),
        (
            "level.peak < 0 and clipping.runs < 5",
            {"level__peak": 1, "clipping__runs": 9},
            "level.peak",
        ),
        (
            "level.peak < 0 and clipping.runs < 5",
            {"level__peak": -1, "clipping__runs": 9},
            "clipping.runs",
        ),
        (
            "level.peak < 0 or clipping.runs < 5",
            {"level__peak": 1, "clipping__runs": 9},
            "clipping.runs, level.peak",
        ),
        ("level.peak < 0 or clipping.runs < 5", {"level__peak": 1, "clipping__runs": 2}, ""),
        ("not (level.peak < 0)", {"level__peak": None}, ""),
        ("false", {}, "false"),
        ("true", {}, ""),
        ("1 > 2 and true", {}, "1 > 2"),
    ],
)
def test_an_expression_selects_by_readings(expression, readings, refused):
    assert refused_by(expression, **readings) == refused


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is no expression"),
        ("level.peak <", "is no expression"),
        ("level.peak < 1\nlevel.rms < 2", "is no expression"),
        ("level.peek < 1", "level.peek is no measure; did you mean level.peak?"),
        ("level < 1", "level is no measure"),
        ("loud < 1", "loud is no measure"),
        ("clipping.events > 1", "clipping.events has no single value"),
        ("acoustic.digest == 1", "acoustic.digest has no single value"),
        ("level.peak < 'a'", "'a' is no number"),
        ("level.peak ** 9 < 1", "** is not allowed"),
        ("level.peak & 9 < 1", "& is not allowed"),
        ("level.peak in (1, 2)", "in is not allowed"),
        (f"level.rms < -20 and level.peak * {10**400} < 1", "is no number below"),
        ("level.peak" + " - 1" * 400, "has more than 1000 characters"),
        ("level.peak\0 < 1", "is no expression"),
        ("__import__('os').system('true')", "is not allowed"),
        ("level.peak.__class__", "is no measure"),
        ("level.__class__", "is no measure"),
        ("(lambda: 1)()", "is not allowed"),
        ("[x for x in level.peak]", "is not allowed"),
        ("level.peak if true else 1", "is not allowed"),
        ("(x := 1) < level.peak", "is not allowed"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_is_allowed(expression, message):
    with pytest.raises(ValueError) as refused:
        Selection(expression)
    assert message in str(refused.value)


@given(
    names=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4, unique=True),
    limits=st.lists(st.floats(-100, 100), min_size=4, max_size=4),
    values=st.lists(st.none() | st.floats(-100, 100), min_size=4, max_size=4),
)
def test_the_first_part_that_is_false_refuses(names, limits, values):
    parts = list(zip(names, limits, values, strict=False))
    expression = " and ".join(f"{name} < {limit!r}" for name, limit, _ in parts)
    readings = {name: value for name, _, value in parts}
    false = [name for name, limit, value in parts if value is None or not value < limit]
    selection = Selection(expression)
    assert selection.refused_by(readings.get) == (false[0] if false else "")
    assert selection.measures == tuple(sorted(names))


def test_threads_select_at_the_same_time():
    selection = selection_of("level.peak < 0 and level.rms < 0")
    readings = [{"level.peak": value, "level.rms": -value} for value in (-1.0, 1.0)] * 2000
    with ThreadPoolExecutor(4) as threads:
        refused = list(threads.map(lambda reading: selection.refused_by(reading.get), readings))
    assert refused == ["level.rms", "level.peak"] * 2000
