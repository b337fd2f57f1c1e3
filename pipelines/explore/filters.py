"""Filters: which recordings of a dataset are shown; a filter stands in the address of a page.

A filter is a list of terms, such as ``codec=mp3`` and ``seconds=10..20``. A recording passes if it
meets the terms of every field; of several terms of one field, it has to meet one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from typing import Any, Literal
from urllib.parse import urlencode

from melmill.transforms.core.errors import ConfigError

#: Value of a term for recordings that have no value; a label's value can hardly be this.
NONE = "(none)"
_RANGE = ".."
_MOST_TERMS = 200
#: Number of columns that a message names.
_NAMED = 12
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the recordings that can be filtered and sorted.

    Attributes
    ----------
    name
        Name in an address: ``codec``, ``clipping.share``, ``label.genre``.
    kind
        Type of the values.
    sql
        Expression of the value in SQL.
    unit
        Unit of a number; ``""`` for none.
    meaning
        Definition, in a sentence; ``""`` if the name says it.
    """

    name: str
    kind: Literal["text", "number", "truth"]
    sql: str
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in SQL.

    Attributes
    ----------
    sql
        Expression with a question mark for each value.
    values
        The values.
    """

    sql: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        """Return the condition that both are met."""
        return Condition(f"({self.sql}) AND ({other.sql})", (*self.values, *other.values))

    def __or__(self, other: Condition) -> Condition:
        """Return the condition that one of the two is met."""
        return Condition(f"({self.sql}) OR ({other.sql})", (*self.values, *other.values))


#: The condition that every recording meets.
ALWAYS = Condition("TRUE")


@dataclass(frozen=True, slots=True)
class Filter:
    """Terms that a recording has to meet.

    Attributes
    ----------
    terms
        Field and value of each term, in the order of the address.
    """

    terms: tuple[tuple[str, str], ...] = ()

    @property
    def query(self) -> str:
        """The filter as the query of an address, without the question mark."""
        return urlencode(self.terms)

    def having(self, name: str, value: str) -> Filter:
        """Return the filter with one term more, or without it if the filter has it already."""
        term = (name, value)
        if term in self.terms:
            return self.without(name, value)
        return Filter((*self.terms, term))

    def without(self, name: str, value: str | None = None) -> Filter:
        """Return the filter without a term, or without all terms of a field."""
        wanted = (t for t in self.terms if t[0] != name or value not in (None, t[1]))
        return Filter(tuple(wanted))

    def values(self, name: str) -> list[str]:
        """Return the values of a field's terms."""
        return [value for field, value in self.terms if field == name]

    def condition(self, fields: Mapping[str, Field], special: Mapping[str, Any]) -> Condition:
        """Return the condition in SQL.

        Parameters
        ----------
        fields
            Fields by name.
        special
            For each name that is no field: a function that returns the condition of a value.

        Raises
        ------
        ConfigError
            A term has an unknown field, or a value that its field cannot have.
        """
        whole = ALWAYS
        for name in dict.fromkeys(field for field, _ in self.terms):
            if name not in fields and name not in special:
                raise ConfigError(_unknown(name, [*fields, *special]))
            make = special[name] if name in special else partial(term, fields[name])
            either = reduce(or_, map(make, self.values(name)))
            whole = either if whole is ALWAYS else whole & either
        return whole


def read_filter(parameters: Iterable[tuple[str, str]], others: Iterable[str]) -> Filter:
    """Return the filter of an address: all parameters, except some others and an empty ``text``.

    Raises
    ------
    ConfigError
        There are too many terms.

    Examples
    --------
    >>> read_filter([("codec", "mp3"), ("page", "2"), ("text", " ")], ["page"]).terms
    (('codec', 'mp3'),)
    """
    skipped = {*others}
    terms = [term for term in parameters if term[0] not in skipped]
    terms = [term for term in terms if term[0] != "text" or term[1].strip()]
    if len(terms) > _MOST_TERMS:
        raise ConfigError(f"filter: has {len(terms)} terms: at most {_MOST_TERMS}")
    return Filter(tuple(dict.fromkeys(terms)))


def term(field: Field, value: str) -> Condition:
    """Return the condition of one value of a field.

    ``(none)`` stands for no value. A number may be a range: ``1..2``, ``1..``, ``..2``. Its end
    does not belong to it, so that ranges that follow each other share no recording.

    Raises
    ------
    ConfigError
        The field cannot have the value.

    Examples
    --------
    >>> term(Field("rows", "number", "rows"), "10..20")
    Condition(sql='(rows >= ?) AND (rows < ?)', values=(10.0, 20.0))
    """
    if value == NONE:
        return Condition(f"{field.sql} IS NULL")
    if field.kind == "truth":
        if value not in _TRUTH:
            raise ConfigError(f"{field.name}: {value!r}: must be true, false or {NONE}")
        return Condition(f"{field.sql} = ?", (_TRUTH[value],))
    if field.kind == "text":
        return Condition(f"{field.sql} = ?", (value,))
    if _RANGE not in value:
        return Condition(f"{field.sql} = ?", (_number(field, value),))
    low, high = value.split(_RANGE, 1)
    limits = [
        Condition(f"{field.sql} {sign} ?", (_number(field, text),))
        for sign, text in ((">=", low), ("<", high))
        if text
    ]
    if not limits:
        return Condition(f"{field.sql} IS NOT NULL")
    return limits[0] if len(limits) == 1 else limits[0] & limits[1]


def _number(field: Field, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{field.name}: {text!r}: must be a number, a range such as 1..2, 1.. or ..2, or {NONE}"
        ) from None


def _unknown(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    listed = ", ".join(names[:_NAMED])
    meant = f"did you mean {' or '.join(close)}?" if close else f"there are: {listed}, and others"
    return f"filter: {name!r}: the dataset has no such column; {meant}"
