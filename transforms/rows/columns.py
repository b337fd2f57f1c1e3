"""The columns that a row can have, and the types that they are stored as.

A type is named as Arrow prints it (``string``, ``int64``, ``list<double>``): the names
stand in configuration files and in :class:`LabelColumn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCALARS = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
}

#: melmill's own columns beside ``mel``, in order; ``channel`` is there only where each
#: channel has rows of its own.
CORE_COLUMNS = {
    "recording_id": "string",
    "uri": "string",
    "chunk_index": "int32",
    "channel": "int32",
    "start_sample": "int64",
    "valid_samples": "int32",
    "sample_rate_hz": "int32",
    "peak_dbfs": "float",
    "rms_dbfs": "float",
}

#: Names that no label may take; ``split`` is the table's partition column.
RESERVED_COLUMNS = frozenset({*CORE_COLUMNS, "mel", "split"})

#: What a label column may hold.
LABEL_TYPES = tuple(
    form.format(scalar)
    for form in ("{}", "list<{}>")
    for scalar in ("string", "int64", "double", "bool")
)


def list_of(element: Any) -> Any:
    """Give the Arrow type of a list of another type."""
    # "element" is what Parquet calls it: named so here, a schema reads back as it was.
    return pa.list_(pa.field("element", element))


def arrow_type(name: str) -> Any:
    """Give the Arrow type that a type's name stands for.

    Examples
    --------
    >>> arrow_type("list<int64>")
    ListType(list<element: int64>)
    """
    if name.startswith("list<"):
        return list_of(SCALARS[name[5:-1]])
    return SCALARS[name]


def type_name(arrow: Any) -> str:
    """Give the name of an Arrow type, as :func:`arrow_type` takes it."""
    if pa.types.is_list(arrow):
        return f"list<{arrow.value_type}>"
    return str(arrow)


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """A column of the catalogue's table that travels to the rows; always nullable.

    Attributes
    ----------
    name
        The column's name; none of :data:`RESERVED_COLUMNS`.
    type
        One of :data:`LABEL_TYPES`.
    """

    name: str
    type: str

    def __post_init__(self) -> None:
        """Refuse what no writer could write."""
        if self.type not in LABEL_TYPES:
            raise ValueError(f"label {self.name!r}: type {self.type!r} is none of {LABEL_TYPES}")
        if not self.name or self.name in RESERVED_COLUMNS:
            raise ValueError(f"a label cannot be named {self.name!r}: the name is taken")


def is_label(name: str) -> bool:
    """Say whether a column is the catalogue's, not melmill's own."""
    return name not in RESERVED_COLUMNS
