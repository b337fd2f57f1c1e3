"""Readings in a table: a column of structs, a field for each group of measures."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa

from melmill.transforms.measures.registry import MEASURES

_EVENT = pa.struct({"second": pa.float64(), "channel": pa.int32(), "value": pa.float64()})
_TYPES = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "events": pa.list_(pa.field("element", _EVENT)),
}


def measures_type() -> Any:
    """Return the Arrow type of all measures: a struct of groups, each a struct of readings.

    >>> measures_type().field("clipping").type.field("share")
    pyarrow.Field<share: double>
    """
    groups: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for measure in MEASURES.values():
        group, name = measure.name.split(".")
        groups[group][name] = _TYPES[measure.type]
    return pa.struct({group: pa.struct(fields) for group, fields in groups.items()})
