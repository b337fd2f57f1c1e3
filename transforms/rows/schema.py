"""The row: the columns of a chunk in a dataset, and a batch of rows in memory.

A :class:`RowSchema` describes every shard of a snapshot; a :class:`RowBatch` holds the
rows of a row group. Both writers (:mod:`~melmill.transforms.rows.parquet` and
:mod:`~melmill.transforms.rows.tfrecord`) get their values from :func:`to_columns`, so both
formats hold the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from melmill.transforms.rows.columns import (
    CORE_COLUMNS,
    LABEL_TYPES,
    RESERVED_COLUMNS,
    LabelColumn,
    arrow_type,
    is_label,
    list_of,
    type_name,
)

__all__ = [
    "LABEL_TYPES",
    "RESERVED_COLUMNS",
    "LabelColumn",
    "RowBatch",
    "RowSchema",
    "check_mel",
    "round_to_resolution",
    "to_columns",
    "to_table",
]

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]

_N_MELS = b"melmill.n_mels"
_N_FRAMES = b"melmill.n_frames"


@dataclass(frozen=True, slots=True)
class RowSchema:
    """The columns of a row, in order.

    Attributes
    ----------
    n_mels, n_frames
        Shape of a chunk's ``mel``.
    labels
        Label columns, which come after the core columns and before ``mel``.
    per_channel
        Whether each channel has its own rows, with its number in ``channel``.
    """

    n_mels: int
    n_frames: int
    labels: tuple[LabelColumn, ...] = ()
    per_channel: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError if two label columns have the same name."""
        names = [label.name for label in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"two label columns have the same name: {sorted(names)}")

    def columns(self) -> dict[str, str]:
        """Return the type's name for every column except ``mel``, in order."""
        core = {k: v for k, v in CORE_COLUMNS.items() if self.per_channel or k != "channel"}
        return core | {label.name: label.type for label in self.labels}

    def arrow(self) -> Any:
        """Return the ``pyarrow.Schema``; its metadata holds the shape of ``mel``.

        Every field is nullable, as in the readers' own schemas (Hugging Face accepts no
        others), but :func:`to_columns` allows nulls only in labels.
        """
        fields = [pa.field(name, arrow_type(kind)) for name, kind in self.columns().items()]
        fields.append(pa.field("mel", list_of(list_of(pa.float32()))))
        n_mels, n_frames = str(self.n_mels).encode(), str(self.n_frames).encode()
        return pa.schema(fields, metadata={_N_MELS: n_mels, _N_FRAMES: n_frames})

    def table(self) -> Any:
        """Return the ``pyarrow.Schema`` of a Delta table of the rows, with its partition column."""
        return self.arrow().append(pa.field("split", pa.string())).remove_metadata()

    @classmethod
    def from_arrow(cls, schema: Any) -> RowSchema:
        """Return the schema that :meth:`arrow` converted; raise ``ValueError`` for any other."""
        shape = schema.metadata or {}
        if _N_MELS not in shape or _N_FRAMES not in shape:
            raise ValueError("not a shard of melmill: its metadata lacks the shape of mel")
        labels = (LabelColumn(f.name, type_name(f.type)) for f in schema if is_label(f.name))
        row_schema = cls(
            int(shape[_N_MELS]), int(shape[_N_FRAMES]), tuple(labels), "channel" in schema.names
        )
        if not schema.equals(row_schema.arrow(), check_metadata=False):
            raise ValueError(f"not a shard of melmill: its columns are {schema.names}")
        return row_schema


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """The rows of a row group.

    Attributes
    ----------
    columns
        Values of every column except ``mel``: NumPy arrays, or lists with ``None`` for a null
        label.
    mel
        Values, float32 [rows, n_mels, n_frames], C-contiguous; written without a copy.
    """

    columns: Mapping[str, Sequence[Any] | Array]
    mel: Float32Array

    @property
    def rows(self) -> int:
        """Number of rows in the batch."""
        return len(self.mel)


def to_columns(batch: RowBatch, schema: RowSchema) -> dict[str, Any]:
    """Return every column except ``mel`` as an Arrow array of the schema's type.

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
    return {name: _column(batch, name, arrow_type(kind)) for name, kind in expected.items()}


def _column(batch: RowBatch, name: str, kind: Any) -> Any:
    try:
        array = _convert(batch.columns[name], kind)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise ValueError(f"column {name!r}: {error}") from error
    if len(array) != batch.rows:
        raise ValueError(f"column {name!r} has {len(array)} values for {batch.rows} rows")
    if array.null_count and not is_label(name):
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
    """Return the batch as a ``pyarrow.Table`` that shares the memory of ``mel``.

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
    return pa.Table.from_arrays(
        [*columns.values(), _mel_column(check_mel(batch, schema))], schema=schema.arrow()
    )


def check_mel(batch: RowBatch, schema: RowSchema) -> Float32Array:
    """Return the batch's ``mel``; raise ``ValueError`` if it does not match the schema.

    Examples
    --------
    >>> check_mel(RowBatch({}, np.zeros((2, 3, 4))), RowSchema(n_mels=3, n_frames=4))
    Traceback (most recent call last):
    ...
    ValueError: mel is float64 [2, 3, 4], not C-contiguous float32 [rows, 3, 4]
    """
    mel = batch.mel
    is_valid = mel.dtype == np.float32 and mel.flags.c_contiguous and mel.size > 0
    if not is_valid or mel.shape[1:] != (schema.n_mels, schema.n_frames):
        raise ValueError(
            f"mel is {mel.dtype} {list(mel.shape)}, not C-contiguous float32 "
            f"[rows, {schema.n_mels}, {schema.n_frames}]"
        )
    return mel


def _mel_column(mel: Float32Array) -> Any:
    rows, n_mels, n_frames = mel.shape
    if mel.size > np.iinfo(np.int32).max:
        raise ValueError(f"{rows} rows of mel are more than a row group can index")
    inner = _lists(pa.array(mel.reshape(-1)), rows * n_mels, n_frames)
    return _lists(inner, rows, n_mels)


def _lists(values: Any, count: int, length: int) -> Any:
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(length))
    return pa.ListArray.from_arrays(offsets, values, type=list_of(values.type))


def round_to_resolution(mel: Float32Array, step: float | None) -> None:
    """Round values to multiples of a step, in place.

    Rounding clears trailing bits, which then compress well: at 1/64 dB a shard has half the
    size. The step must be a power of two, because float32 holds its multiples exactly.

    Parameters
    ----------
    mel
        Values, float32 of any shape; finite, below 2**126 * step.
    step
        Resolution in the unit of ``mel``: a power of two. ``None`` rounds nothing.

    Raises
    ------
    ValueError
        If the step is not a power of two.

    Examples
    --------
    >>> mel = np.array([-12.345678, 0.01, 3.25], dtype=np.float32)
    >>> round_to_resolution(mel, 1 / 64)
    >>> mel
    array([-12.34375 ,   0.015625,   3.25    ], dtype=float32)
    >>> round_to_resolution(mel, 0.01)
    Traceback (most recent call last):
    ...
    ValueError: the resolution 0.01 is not a power of two, so rounding would save nothing
    """
    if step is None:
        return
    if math.frexp(step)[0] != 0.5:
        raise ValueError(
            f"the resolution {step} is not a power of two, so rounding would save nothing"
        )
    np.multiply(mel, np.float32(1 / step), out=mel)
    np.rint(mel, out=mel)
    np.multiply(mel, np.float32(step), out=mel)
