"""Cells of a catalogue's table: the label type of a column, and its Python values.

Every function takes a whole column in the form of the table's format: text (CSV), parsed
JSON, or an Arrow array (Parquet). A value that does not fit its type raises one of
``CONVERSION_ERRORS``; the caller adds the value's place in the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from melmill.transforms.core.records import Label, Scalar
from melmill.transforms.rows.columns import arrow_type

#: Exceptions that a conversion can raise.
CONVERSION_ERRORS = (ValueError, TypeError, OverflowError, NotImplementedError)

#: Function of a column's values, its type, and whether the user declared this type.
Convert = Callable[[Any, str, bool], list[Label]]

_NULL_WORDS = frozenset({"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None"})

# Text that is converted without a declared type: the conversion must lose nothing.
_LOSSLESS = {
    "int64": re.compile(r"-?(0|[1-9]\d{0,14})", re.ASCII),
    "double": re.compile(r"[+-]?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII),
    "bool": re.compile(r"(?i:true|false)"),
}
# Text that is converted if the user declared the type.
_GENEROUS = {
    "int64": re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII),
    "double": re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII),
    "bool": re.compile(r"\s*(?i:true|false|1|0)\s*"),
}
_PARSE: dict[str, Callable[[str], Scalar]] = {
    "int64": int,
    "double": float,
    "bool": lambda text: text.strip().lower() in ("true", "1"),
}


def text_type(values: Sequence[str | None]) -> str:
    """Return the label type of a column of text: the narrowest type that loses nothing.

    Examples
    --------
    >>> text_type(["1", "-20", ""]), text_type(["1", "2.5", "NA"]), text_type(["true"])
    ('int64', 'double', 'bool')
    >>> text_type(["007", "8"]), text_type(["", "NA"]), text_type(["12345678901234567890"])
    ('string', 'string', 'string')
    """
    words = [value for value in values if value is not None and value not in _NULL_WORDS]
    for name, pattern in _LOSSLESS.items():
        if words and all(map(pattern.fullmatch, words)):
            return name
    return "string"


def json_type(values: Sequence[Any]) -> str:
    """Return the type of a column of parsed JSON; it may not be a label type.

    Examples
    --------
    >>> json_type([1, 2.5, None]), json_type([["a"], []]), json_type([None])
    ('double', 'list<string>', 'string')
    >>> json_type([1, "a"]), json_type([{"a": 1}])
    ('a mixture of kinds', 'struct<a: int64>')
    """
    try:
        return column_type(_json_array(values).type)
    except CONVERSION_ERRORS:
        return "a mixture of kinds"


def column_type(arrow: Any) -> str:
    """Return the label type for an Arrow type, or Arrow's own name if there is none.

    Dates and timestamps become text. A column that holds only nulls counts as text.

    Examples
    --------
    >>> column_type(pa.dictionary(pa.int8(), pa.large_string()))
    'string'
    >>> column_type(pa.large_list(pa.float32())), column_type(pa.binary())
    ('list<double>', 'binary')
    """
    kinds = pa.types
    if kinds.is_dictionary(arrow):
        return column_type(arrow.value_type)
    if kinds.is_list(arrow) or kinds.is_large_list(arrow) or kinds.is_fixed_size_list(arrow):
        return f"list<{column_type(arrow.value_type)}>"
    for name, is_kind in _LABEL_KINDS:
        if is_kind(arrow):
            return name
    return str(arrow)


_LABEL_KINDS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("string", pa.types.is_string),
    ("string", pa.types.is_large_string),
    ("string", pa.types.is_string_view),
    ("int64", pa.types.is_integer),
    ("double", pa.types.is_floating),
    ("bool", pa.types.is_boolean),
    ("string", pa.types.is_date),
    ("string", pa.types.is_timestamp),
    ("string", pa.types.is_null),
)


def from_text(values: Sequence[str | None], type_name: str, declared: bool) -> list[Label]:
    """Return the values of a CSV column; an empty cell is null."""
    if type_name == "string":
        return [value or None for value in values]
    pattern = (_GENEROUS if declared else _LOSSLESS)[type_name]
    parse = _PARSE[type_name]

    def convert(text: str | None) -> Scalar:
        if text is None or text in _NULL_WORDS:
            return None
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return parse(text)

    return [convert(value) for value in values]


def from_json(values: Sequence[Any], type_name: str, declared: bool) -> list[Label]:
    """Return the values of a parsed JSON column; in declared text, other values become JSON."""
    if declared and type_name == "string":
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    # Not pa.array(values, type): Arrow would turn 1.5 into 1, and "ab" into a list of letters.
    array = _json_array(values)
    if not _fits(array.type, type_name):
        raise TypeError(f"{array.type} is not {type_name}")
    return _to_python(array.cast(arrow_type(type_name)))


def from_arrow(values: Any, type_name: str, declared: bool) -> list[Label]:
    """Return the values of a Parquet column; raise an error if a cast would lose data."""
    return _to_python(values.cast(arrow_type(type_name)))


def _to_python(array: Any) -> list[Label]:
    values = array.to_pylist()
    if pa.types.is_list(array.type):
        return [None if value is None else tuple(value) for value in values]
    return values  # type: ignore[no-any-return]


def _json_array(values: Sequence[Any]) -> Any:
    array = pa.array(values)
    if column_type(array.type) in ("double", "list<double>"):
        # In a column of doubles, and only there, Arrow converts true to 1.0.
        flat = chain.from_iterable(v if isinstance(v, list) else (v,) for v in values)
        if bool in map(type, flat):
            raise TypeError("a boolean among numbers")
    return array


def _fits(arrow: Any, type_name: str) -> bool:
    """Return whether a JSON type may be cast; the cast still fails for 1.5 to a whole number."""
    if pa.types.is_null(arrow):
        return True
    if pa.types.is_list(arrow):
        return type_name.startswith("list<") and _fits(arrow.value_type, type_name[5:-1])
    own_type = column_type(arrow)
    return own_type == type_name or {own_type, type_name} == {"int64", "double"}
