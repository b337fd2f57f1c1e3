"""Rows as ``tf.train.Example``, serialised and parsed without TensorFlow.

An Example is a protobuf map from names to lists of bytes, floats or int64. The message types are
declared here with two differences, which do not show on the wire. A list of floats is ``bytes``:
the packed little-endian numbers, so that NumPy's bytes need no Python floats. The map is a list of
entries, so that their order is ours: sorted by name.

How a row maps to an Example
----------------------------
- Every column is a feature of the same name. An array of float32 is a list of its floats, row by
  row; an array of integers is one bytes value: the little-endian numbers, row by row, as
  ``tf.io.decode_raw`` and TFDS's encoding ``bytes`` read them. A waveform in FLAC is one bytes
  value: the FLAC file. A feature that is a number is one float.
- Booleans are int64 0 and 1. A double becomes the nearest float32: Example has no double.
- For a null (of a label, or of a feature that is a number) the feature is left out:
  ``VarLenFeature`` then gives no value, and ``FixedLenFeature`` gives its default or, without a
  default, an error; neither invents a 0. An empty list is a feature without values. A null
  *inside* a list cannot be stored and raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.columns import arrow_type
from melmill.transforms.rows.flac_bytes import encode_flac
from melmill.transforms.rows.schema import Array, RowBatch, RowSchema, check_features, to_columns

#: Values of a feature in an Example.
Values = list[bytes] | npt.NDArray[np.float32] | npt.NDArray[np.int64]

# The message types of tensorflow/core/example/*.proto, but FloatList has packed bytes, and the map
# is a list of entries: protobuf's runtimes sort a map in different orders.
_MESSAGE_TYPES = """
name: "melmill/example.proto" package: "melmill" syntax: "proto3"
message_type {
  name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "FloatList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
}
message_type {
  name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type_name: ".melmill.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: ".melmill.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: ".melmill.Int64List" oneof_index: 0 }
}
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type_name: ".melmill.Feature" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type_name: ".melmill.Entry" label: LABEL_REPEATED }
}
message_type { name: "Example" field { name: "features" number: 1 type_name: ".melmill.Features" } }
"""

_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_MESSAGE_TYPES, descriptor_pb2.FileDescriptorProto()))
_Example, _Feature = (
    message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"melmill.{name}"))
    for name in ("Example", "Feature")
)


def _strings(values: Sequence[str]) -> Any:
    return _Feature(bytes_list={"value": [value.encode() for value in values]})


def _integers(values: Sequence[int]) -> Any:
    return _Feature(int64_list={"value": [int(value) for value in values]})


def _floats(values: Sequence[float]) -> Any:
    return _Feature(float_list={"value": np.array(values, "<f4").tobytes()})


_ENCODERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "string": _strings,
    "int32": _integers,
    "int64": _integers,
    "bool": _integers,
    "float": _floats,
    "double": _floats,
}


def _column_features(name: str, kind: str, array: Any) -> list[Any]:
    """Return each row's feature of a column; ``None`` for a null."""
    is_list = kind.startswith("list<")
    scalar = kind[5:-1] if is_list else kind
    if is_list and array.flatten().null_count:
        raise CatalogueError(
            f"label {name!r} has a missing value inside a list, which TFRecord cannot hold: "
            f"remove the value from the list, or write Parquet only"
        )
    if scalar == "double":  # a value beyond float32 becomes infinite, as in protobuf
        array = array.cast(arrow_type(kind.replace("double", "float")), safe=False)
    encode = _ENCODERS[scalar]
    if encode is not _floats:
        # Most values repeat from chunk to chunk. Floats do not, and for -0.0 the cache would
        # return the feature of 0.0.
        encode = cache(encode)
    rows = array.to_pylist()
    return [None if row is None else encode(tuple(row) if is_list else (row,)) for row in rows]


def _array_features(values: Array, column: FeatureColumn) -> Iterator[Any]:
    """Yield each row's feature of an array, float32, int16 or int32 [rows, ...].

    ``None`` stands for a null.
    """
    if column.is_number:
        yield from (None if np.isnan(value) else _floats([value]) for value in values)
        return
    if column.flac_rate_hz:
        for row in values:
            yield _Feature(bytes_list={"value": [encode_flac(row, column.flac_rate_hz)]})
        return
    for row in values.astype(values.dtype.newbyteorder("<"), copy=False):
        if values.dtype == np.float32:
            yield _Feature(float_list={"value": row.tobytes()})
        else:
            yield _Feature(bytes_list={"value": [row.tobytes()]})


def encode_examples(batch: RowBatch, schema: RowSchema) -> Iterator[bytes]:
    """Yield each row as a serialised ``tf.train.Example``.

    Parameters
    ----------
    batch
        Rows to write.
    schema
        Columns of the dataset.

    Yields
    ------
    bytes
        Bytes of an ``Example`` whose features are sorted by name.

    Raises
    ------
    ValueError
        If the batch does not match the schema.
    CatalogueError
        If a list label has a null inside a list.
    """
    checked = check_features(batch, schema)
    arrays = to_columns(batch, schema)
    columns: dict[str, Any] = {
        name: _column_features(name, kind, arrays[name]) for name, kind in schema.columns().items()
    }
    columns |= {c.name: _array_features(checked[c.name], c) for c in schema.features}
    for features in zip(*(columns[name] for name in sorted(columns)), strict=True):
        example = _Example()
        for name, feature in zip(sorted(columns), features, strict=True):
            if feature is not None:
                example.features.feature.add(key=name, value=feature)
        yield example.SerializeToString()


def parse_example(data: bytes) -> dict[str, Values]:
    """Return the features of a serialised ``tf.train.Example``.

    Parameters
    ----------
    data
        Bytes of a record. Lists of numbers must be packed in one piece, as all current writers do.

    Returns
    -------
    dict
        Values of each feature: a list of bytes, or a float32 or int64 array [n]. A feature
        without a kind is left out.

    Raises
    ------
    ValueError
        If the bytes are not an Example.

    Examples
    --------
    >>> parse_example(bytes.fromhex("0a0c0a0a0a01791205 1a030a0107"))
    {'y': array([7])}
    """
    try:
        example = _Example.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not an Example: {error}") from error
    # Protobuf skips fields that it does not know, such as numbers that are not packed.
    example.DiscardUnknownFields()
    if example.ByteSize() != len(data):
        raise ValueError("not an Example: it has other fields than an Example")
    entries = example.features.feature
    return {e.key: _parse_feature(e.value) for e in entries if e.value.WhichOneof("kind")}


def _parse_feature(feature: Any) -> Values:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value
    if kind == "float_list":
        return np.frombuffer(values, "<f4")
    return list(values) if kind == "bytes_list" else np.array(values, np.int64)
