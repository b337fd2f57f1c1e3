"""The columns that a row can have, and their types in storage.

A type has the name that Arrow prints (``string``, ``int64``, ``list<double>``); configuration
files and :class:`LabelColumn` use these names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from melmill.transforms.core.feature_columns import FeatureColumn

SCALARS = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
}

#: melmill's own columns besides the features, in order; ``channel`` exists only if each channel has
#: its own rows, and ``variant`` only if the recipe has variants.
CORE_COLUMNS = {
    "recording_id": "string",
    "uri": "string",
    "chunk_index": "int32",
    "channel": "int32",
    "variant": "int32",
    "start_sample": "int64",
    "valid_samples": "int32",
    "sample_rate_hz": "int32",
    "peak_dbfs": "float",
    "rms_dbfs": "float",
}

#: Names that no label may have; ``split`` is the table's partition column. A label may have the
#: name ``variant`` if the recipe has no variants: older datasets may have such a label.
RESERVED_COLUMNS = frozenset({*CORE_COLUMNS, "mel", "split"} - {"variant"})

#: Types that a label column may have.
LABEL_TYPES = tuple(
    form.format(scalar)
    for form in ("{}", "list<{}>")
    for scalar in ("string", "int64", "double", "bool")
)


def list_of(element: Any) -> Any:
    """Return the Arrow type of a list with elements of a type."""
    # Parquet uses the name "element"; with it, a schema is unchanged after writing and reading.
    return pa.list_(pa.field("element", element))


def arrow_type(name: str) -> Any:
    """Return the Arrow type for the name of a type.

    Examples
    --------
    >>> arrow_type("list<int64>")
    ListType(list<element: int64>)
    """
    if name.startswith("list<"):
        return list_of(SCALARS[name[5:-1]])
    return SCALARS[name]


def array_type(column: FeatureColumn) -> Any:
    """Return the Arrow type of a column of features: FLAC, a number, or lists inside lists."""
    if column.flac_rate_hz:
        return pa.binary()
    arrow = {"float32": pa.float32(), "int16": pa.int16(), "int32": pa.int32()}[column.dtype]
    for _ in column.shape:
        arrow = list_of(arrow)
    return arrow


def type_name(arrow: Any) -> str:
    """Return the name of an Arrow type; the inverse of :func:`arrow_type`."""
    if pa.types.is_list(arrow):
        return f"list<{arrow.value_type}>"
    return str(arrow)


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """A column of the catalogue's table that is copied to the rows; always nullable.

    Attributes
    ----------
    name
        Name of the column; must not be in :data:`RESERVED_COLUMNS`.
    type
        Type, from :data:`LABEL_TYPES`.
    """

    name: str
    type: str

    def __post_init__(self) -> None:
        """Raise ValueError for a type or a name that a label cannot have."""
        if self.type not in LABEL_TYPES:
            raise ValueError(f"label {self.name!r}: type {self.type!r} is not in {LABEL_TYPES}")
        if not self.name or self.name in RESERVED_COLUMNS:
            raise ValueError(f"a label cannot have the name {self.name!r}: it is empty or reserved")


def is_variant(field: Any) -> bool:
    """Return whether a field of an Arrow schema is the column of variants, and no label."""
    return bool(field.name == "variant" and field.type == pa.int32())  # no label has this type


def is_label(name: str) -> bool:
    """Return whether a column comes from the catalogue and is not melmill's own."""
    return name not in RESERVED_COLUMNS
