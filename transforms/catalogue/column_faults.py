"""Faults of a table's columns, which are all reported at once: names, types, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from melmill.transforms.catalogue.meanings import Meanings, TableKeys, missing_columns
from melmill.transforms.catalogue.table_formats import TableFormat
from melmill.transforms.rows.columns import LABEL_TYPES, RESERVED_COLUMNS

#: Types that a column must not have if its meaning has the type of the key.
_NEVER = {"string": ("double", "bool", "binary"), "double": ("bool", "binary")}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a table has, and what the recipe says about them.

    Attributes
    ----------
    uri, form
        URI and format of the table.
    names
        Names of the columns; a table may have a name twice.
    types
        Types of the columns, by name.
    declared
        Types of label columns from the recipe.
    meanings, keys
        Columns with a meaning, and what the recipe says about the table.
    """

    uri: str
    form: TableFormat
    names: Sequence[str]
    types: Mapping[str, str]
    declared: Mapping[str, str]
    meanings: Meanings
    keys: TableKeys

    @property
    def label_types(self) -> dict[str, str]:
        """Types of the label columns, by name: all columns without a meaning."""
        types = {**self.types, **self.declared}
        return {name: kind for name, kind in types.items() if name not in self.meanings.types}


def column_faults(opened: Columns) -> list[str]:
    """Return a message for each fault of a table's columns."""
    return [
        *missing_columns(opened.uri, opened.names, opened.meanings, opened.keys),
        *_name_faults(opened.uri, opened.names, opened.meanings),
        *_declared_faults(opened),
        *_type_faults(opened),
        *_meaning_faults(opened),
    ]


def _name_faults(uri: str, names: Sequence[str], meanings: Meanings) -> Iterator[str]:
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        # Column names of Delta tables are not case-sensitive.
        folded = name.casefold()
        if not name:
            yield (
                f"{uri}: column {number} has no name (a saved index?); give it a name or drop the"
                " column"
            )
        elif folded in seen:
            yield f"{uri} has more than one column {name!r}; rename all but one"
        elif name not in meanings.types and folded in RESERVED_COLUMNS:
            yield f"{uri}: {_reserved(name)}"
        seen.add(folded)


def _reserved(name: str) -> str:
    return (
        f"no label can be named {name!r}, because the training rows already have a column of"
        f" this name; rename the column (reserved: {', '.join(sorted(RESERVED_COLUMNS))})"
    )


def _declared_faults(opened: Columns) -> Iterator[str]:
    uri, columns = opened.uri, opened.types
    for name in opened.declared:
        if name.casefold() in RESERVED_COLUMNS | opened.meanings.types.keys():
            yield f"catalogue.label_types: {name!r} is not a label column of {uri}; remove it"
        # In JSON lines a key may appear for the first time after the first SAMPLE_ROWS rows.
        elif name not in columns and opened.form.declares_columns:
            yield f"catalogue.label_types: {uri} has no column {name!r}; it has {list(columns)}"


def _type_faults(opened: Columns) -> Iterator[str]:
    uri, is_text = opened.uri, opened.form.is_text
    allowed = [t for t in LABEL_TYPES if not (is_text and t.startswith("list<"))]
    for name, kind in opened.label_types.items():
        if kind not in allowed:
            yield (
                f"{uri}: column {name!r} cannot be a label: its type is {kind}, but a label is one"
                f" of {', '.join(allowed)}; drop the column, or set catalogue.label_types"
            )


def _meaning_faults(opened: Columns) -> Iterator[str]:
    """Yield the faults of columns whose type never fits their meaning; text may hold anything."""
    if opened.form.is_text:
        return
    for name, meaning in opened.meanings.types.items():
        kind = opened.types.get(name, meaning)
        if kind.startswith("list<") or kind.startswith("struct<") or kind in _NEVER[meaning]:
            yield f"{opened.uri}: column {name!r} has the type {kind}, but must be {meaning}"
