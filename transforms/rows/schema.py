"""The row: the columns of a chunk in a dataset, and a batch of rows in memory.

A :class:`RowSchema` describes every shard of a snapshot; a :class:`RowBatch` holds the
rows of a row group. Both writers (:mod:`~melmill.transforms.rows.parquet` and
:mod:`~melmill.transforms.rows.tfrecord`) get their values from :func:`to_columns`, so both
formats hold the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from melmill.transforms.core.feature_columns import Array, FeatureColumn
from melmill.transforms.rows.columns import (
    CORE_COLUMNS,
    LABEL_TYPES,
    RESERVED_COLUMNS,
    LabelColumn,
    array_type,
    arrow_type,
    is_label,
    is_variant,
    list_of,
    type_name,
)
from melmill.transforms.rows.feature_metadata import from_metadata, is_only_mel, to_metadata
from melmill.transforms.rows.flac_bytes import encode_flac

__all__ = [
    "LABEL_TYPES",
    "RESERVED_COLUMNS",
    "Array",
    "LabelColumn",
    "RowBatch",
    "RowSchema",
    "check_features",
    "to_columns",
    "to_table",
]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowSchema:
    """The columns of a row, in order.

    Attributes
    ----------
    features
        Columns of features, which come last.
    labels
        Label columns, which come after the core columns and before the features.
    per_channel
        Whether each channel has its own rows, with its number in ``channel``.
    with_variants
        Whether variants of the recordings have their own rows, with their numbers in ``variant``.
    """

    features: tuple[FeatureColumn, ...]
    labels: tuple[LabelColumn, ...] = ()
    per_channel: bool = False
    # Not part of the repr, from which names of runs are made; see ``text``.
    with_variants: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError if two columns have the same name."""
        features = (column.name for column in self.features)
        own = [*self.counts, *(["variant"] if self.with_variants else [])]
        names = [*own, *(label.name for label in self.labels), *features]
        if len(set(names)) < len(names):
            raise ValueError(f"two columns have the same name: {sorted(names)}")

    def columns(self) -> dict[str, str]:
        """Return the type's name for every column that is not a feature, in order."""
        columns: dict[str, str] = {}
        optional = {"channel": self.per_channel, "variant": self.with_variants}
        for name, kind in CORE_COLUMNS.items():
            if optional.get(name, True):
                columns[name] = kind
            if name == "valid_samples":
                columns |= dict.fromkeys(self.counts, "int32")
        return columns | {label.name: label.type for label in self.labels}

    @property
    def counts(self) -> tuple[str, ...]:
        """Columns beside ``valid_samples`` that count what is not padding, such as valid frames."""
        names = dict.fromkeys(column.valid for column in self.features)
        return tuple(name for name in names if name and name not in CORE_COLUMNS)

    @property
    def has_only_mel(self) -> bool:
        """Whether the only feature is a spectrogram with the name ``mel``."""
        return is_only_mel(self.features)

    @property
    def text(self) -> str:
        """Text of the columns, for digests: that of schemas before there were other features."""
        variants = ", with variants" if self.with_variants else ""
        if not self.has_only_mel:
            return f"{self!r}{variants}"
        n_mels, n_frames = self.features[0].shape
        shape = f"n_mels={n_mels}, n_frames={n_frames}"
        own = f"{shape}, labels={self.labels!r}, per_channel={self.per_channel!r}"
        return f"RowSchema({own}){variants}"

    @property
    def row_bytes(self) -> int:
        """Size of a row's features, in bytes."""
        return sum(column.row_bytes for column in self.features)

    def arrow(self) -> Any:
        """Return the ``pyarrow.Schema``; its metadata holds the shapes of the features.

        Every field is nullable, as in the readers' own schemas (Hugging Face accepts no
        others), but only labels and features that are numbers have nulls.
        """
        fields = [pa.field(name, arrow_type(kind)) for name, kind in self.columns().items()]
        fields += [pa.field(column.name, array_type(column)) for column in self.features]
        return pa.schema(fields, metadata=to_metadata(self.features))

    def table(self) -> Any:
        """Return the ``pyarrow.Schema`` of a Delta table of the rows, with its partition column."""
        return self.arrow().append(pa.field("split", pa.string())).remove_metadata()

    @classmethod
    def from_arrow(cls, schema: Any) -> RowSchema:
        """Return the schema that :meth:`arrow` converted; raise ``ValueError`` for any other."""
        features = from_metadata(schema.metadata or {})
        names = {*(column.name for column in features), *(column.valid for column in features)}
        labels = tuple(
            LabelColumn(field.name, type_name(field.type))
            for field in schema
            if is_label(field.name) and field.name not in names and not is_variant(field)
        )
        with_variants = any(is_variant(field) for field in schema)
        row_schema = cls(features, labels, "channel" in schema.names, with_variants)
        if not schema.equals(row_schema.arrow(), check_metadata=False):
            raise ValueError(f"not a shard of melmill: its columns are {schema.names}")
        return row_schema


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """The rows of a row group.

    Attributes
    ----------
    columns
        Values of every column that is not a feature: NumPy arrays, or lists with ``None`` for a
        null label.
    features
        Array [rows, *shape] of each feature, C-contiguous; written without a copy. NaN in a
        feature that is a number stands for null.
    """

    columns: Mapping[str, Sequence[Any] | Array]
    features: Mapping[str, Array]

    @property
    def rows(self) -> int:
        """Number of rows in the batch."""
        arrays = self.features or self.columns
        return len(next(iter(arrays.values()), ()))

    def take(self, rows: slice | Sequence[int]) -> RowBatch:
        """Return some of the rows, given as a slice or as their numbers."""
        if isinstance(rows, slice):
            columns: dict[str, Any] = {name: values[rows] for name, values in self.columns.items()}
        else:
            columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return RowBatch(columns, {name: values[rows] for name, values in self.features.items()})


def to_columns(batch: RowBatch, schema: RowSchema) -> dict[str, Any]:
    """Return every column that is not a feature as an Arrow array of the schema's type.

    Parameters
    ----------
    batch
        Rows to write.
    schema
        Columns of the dataset.

    Returns
    -------
    dict of str to pyarrow.Array
        Columns in the schema's order.

    Raises
    ------
    ValueError
        If the columns or their lengths do not match the schema, a value cannot be stored
        exactly, or a column that is not a label has a null.
    """
    expected = schema.columns()
    if set(batch.columns) != set(expected):
        raise ValueError(f"columns {sorted(batch.columns)} are not the schema's {sorted(expected)}")
    labels = {label.name for label in schema.labels}
    return {
        name: _column(batch, name, arrow_type(kind), may_be_null=name in labels)
        for name, kind in expected.items()
    }


def _column(batch: RowBatch, name: str, kind: Any, *, may_be_null: bool) -> Any:
    try:
        array = _convert(batch.columns[name], kind)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise ValueError(f"column {name!r}: {error}") from error
    if len(array) != batch.rows:
        raise ValueError(f"column {name!r} has {len(array)} values for {batch.rows} rows")
    if array.null_count and not may_be_null:
        raise ValueError(f"column {name!r} has {array.null_count} nulls; only labels may be null")
    return array


def _convert(values: Sequence[Any] | Array, kind: Any) -> Any:
    scalar = kind.value_type if pa.types.is_list(kind) else kind
    if not pa.types.is_integer(scalar) or isinstance(values, np.ndarray):
        return pa.array(values, kind)
    # pa.array with an integer type turns Python's 1.5 into 1; a cast raises an error instead.
    inferred = pa.array(values)
    is_float = "double" in str(inferred.type)
    return inferred.cast(kind) if is_float else pa.array(values, kind)


def to_table(batch: RowBatch, schema: RowSchema) -> Any:
    """Return the batch as a ``pyarrow.Table`` that shares the memory of the arrays.

    Parameters
    ----------
    batch
        Rows to write.
    schema
        Columns of the dataset.

    Raises
    ------
    ValueError
        If the batch does not match the schema (see :func:`to_columns`), or is empty.
    """
    columns = to_columns(batch, schema)
    checked = check_features(batch, schema)
    features = [_feature_array(checked[column.name], column) for column in schema.features]
    return pa.Table.from_arrays([*columns.values(), *features], schema=schema.arrow())


def check_features(batch: RowBatch, schema: RowSchema) -> Mapping[str, Array]:
    """Return the batch's features; raise ``ValueError`` if they do not match the schema.

    Examples
    --------
    >>> mel = FeatureColumn("mel", (3, 4))
    >>> check_features(RowBatch({}, {"mel": np.zeros((2, 3, 4))}), RowSchema((mel,)))
    Traceback (most recent call last):
    ...
    ValueError: mel is float64 [2, 3, 4], not C-contiguous float32 [rows, 3, 4]
    """
    names = [column.name for column in schema.features]
    if sorted(batch.features) != sorted(names):
        raise ValueError(f"features {sorted(batch.features)} are not the schema's {sorted(names)}")
    for column in schema.features:
        values = batch.features[column.name]
        is_valid = values.dtype == column.dtype and values.flags.c_contiguous and values.size > 0
        if not is_valid or values.shape[1:] != column.shape:
            shape = ", ".join(map(str, column.shape))
            raise ValueError(
                f"{column.name} is {values.dtype} {list(values.shape)}, not C-contiguous "
                f"{column.dtype} [rows, {shape}]"
            )
    return batch.features


def _feature_array(values: Array, column: FeatureColumn) -> Any:
    if values.size > np.iinfo(np.int32).max:
        raise ValueError(f"{len(values)} rows of {column.name} are more than a row group can index")
    if column.flac_rate_hz:
        return pa.array([encode_flac(row, column.flac_rate_hz) for row in values], pa.binary())
    array = pa.array(values.reshape(-1), from_pandas=column.is_number)  # NaN is null
    for axis in reversed(range(len(column.shape))):
        array = _lists(array, math.prod(values.shape[: axis + 1]), column.shape[axis])
    return array


def _lists(values: Any, count: int, length: int) -> Any:
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(length))
    return pa.ListArray.from_arrays(offsets, values, type=list_of(values.type))
