"""A split's rows for TensorFlow; imported only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import tensorflow as tf

from melmill.pipelines.added_columns import Joining
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.flac_bytes import decode_flac
from melmill.transforms.side_tables.lookups import Lookup

#: Between the parts of a key, which are an id and numbers.
_SEPARATOR = "/"


def read_records(
    files: Sequence[str],
    rows: int,
    columns: Mapping[str, str | FeatureColumn],
    joining: Joining,
) -> Any:
    """Return TFRecord files as a ``tf.data.Dataset`` of dictionaries.

    Parameters
    ----------
    files, rows
        The files, and their number of rows.
    columns
        The type of each column, by name: stored columns, features, and added columns.
    joining
        Joins the added columns, each of which has a value in every row.
    """
    key = [name for name in joining.key if name not in columns]
    stored = {name: kind for name, kind in columns.items() if name not in joining.names}
    kinds = {"recording_id": "string", "chunk_index": "int32", "channel": "int32"}
    features = {
        name: _example_feature(kind) for name, kind in (stored | {n: kinds[n] for n in key}).items()
    }
    # Count before parsing: tf.data fuses parsing and batching only if nothing is in between.
    records = tf.data.TFRecordDataset(files)
    counted = records.apply(tf.data.experimental.assert_cardinality(rows))
    encoded = {
        name: column
        for name, column in stored.items()
        if isinstance(column, FeatureColumn) and column.dtype != "float32"
    }
    joins = [_join(lookup) for lookup in joining.lookups] if joining.names else []

    def parse(record: Any) -> Any:
        row = tf.io.parse_single_example(record, features)
        for name, column in encoded.items():
            row[name] = tf.reshape(_decoded(row[name], column), column.shape)
        for join in joins:
            row.update(join(row))
        return {name: row[name] for name in columns}

    return counted.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def _example_feature(kind: str | FeatureColumn) -> Any:
    if isinstance(kind, FeatureColumn):
        is_float = kind.dtype == "float32"  # integers and FLAC are one bytes value
        if kind.is_number:
            return tf.io.FixedLenFeature([], tf.float32, float("nan"))
        shape, dtype = (kind.shape, tf.float32) if is_float else ([], tf.string)
        return tf.io.FixedLenFeature(shape, dtype)
    tensor = _tensor_type(kind.removeprefix("list<").removesuffix(">"))
    if kind.startswith("list<"):
        return tf.io.RaggedFeature(tensor)
    return tf.io.FixedLenFeature([], tensor)


def _tensor_type(scalar: str) -> Any:
    floats = {"string": tf.string, "float": tf.float32, "double": tf.float32}
    return floats.get(scalar, tf.int64)


def _decoded(value: Any, column: FeatureColumn) -> Any:
    if column.flac_rate_hz:
        # TensorFlow has no decoder of FLAC of its own.
        return tf.numpy_function(lambda data: decode_flac(data, *column.shape), [value], tf.int16)
    return tf.io.decode_raw(value, column.dtype)


def _join(lookup: Lookup) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that adds a side table's values to a row, by a hash table of the keys."""
    places = tf.range(len(lookup.keys), dtype=tf.int64)
    keys = tf.constant(lookup.key_texts(_SEPARATOR), tf.string)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), -1)
    values = {name: _tensor(lookup.values[name]) for name in lookup.values.column_names}

    def join(row: Mapping[str, Any]) -> dict[str, Any]:
        parts = [row["recording_id"], *(tf.strings.as_string(row[n]) for n in lookup.key[1:])]
        place = table.lookup(tf.strings.join(parts, _SEPARATOR))
        return {name: tf.gather(value, place) for name, value in values.items()}

    return join


def _tensor(column: pa.ChunkedArray) -> Any:
    """Return the values as a tensor; lists become a ragged tensor."""
    array = column.combine_chunks()
    if pa.types.is_list(array.type):
        splits = array.offsets.to_numpy() - array.offsets[0].as_py()
        return tf.RaggedTensor.from_row_splits(_flat(array.flatten()), splits.astype("int64"))
    return _flat(array)


def _flat(array: pa.Array) -> Any:
    # A row without a value is an error before this is read; the value of no row may be null.
    kind = _tensor_type(str(array.type))
    empty = "" if kind == tf.string else 0
    return tf.constant([empty if value is None else value for value in array.to_pylist()], kind)
