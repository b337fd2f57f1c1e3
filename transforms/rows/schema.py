"""The row: which columns a chunk has in a dataset, and how a row group of them is held.

One :class:`RowSchema` describes every shard of a snapshot; a :class:`RowBatch` is the
rows of one row group. Both writers (:mod:`~melmill.transforms.rows.parquet` and
:mod:`~melmill.transforms.rows.tfrecord`) take their values through :func:`to_columns`, so the
two formats cannot disagree about a row.
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
        Shape of one chunk's ``mel``.
    labels
        The label columns, which stand between the core columns and ``mel``.
    per_channel
        Whether each channel has rows of its own, told apart by ``channel``.
    """

    n_mels: int
    n_frames: int
    labels: tuple[LabelColumn, ...] = ()
    per_channel: bool = False

    def __post_init__(self) -> None:
        """Refuse two columns of one name."""
        names = [label.name for label in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"two label columns have one name: {sorted(names)}")

    def columns(self) -> dict[str, str]:
        """Give the type's name of every column but ``mel``, in order."""
        core = {k: v for k, v in CORE_COLUMNS.items() if self.per_channel or k != "channel"}
        return core | {label.name: label.type for label in self.labels}

    def arrow(self) -> Any:
        """Give the ``pyarrow.Schema``; its metadata holds the shape that ``mel`` has.

        Every field is nullable, as the readers' own schemas are (Hugging Face refuses
        others); :func:`to_columns` sees to it that only labels are ever null.
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
        """Read back what :meth:`arrow` made; ``ValueError`` for any other schema."""
        shape = schema.metadata or {}
        if _N_MELS not in shape or _N_FRAMES not in shape:
            raise ValueError("not a shard of melmill: its metadata lacks the shape of mel")
        labels = (LabelColumn(f.name, type_name(f.type)) for f in schema if is_label(f.name))
        found = cls(
            int(shape[_N_MELS]), int(shape[_N_FRAMES]), tuple(labels), "channel" in schema.names
        )
        if not schema.equals(found.arrow(), check_metadata=False):
            raise ValueError(f"not a shard of melmill: its columns are {schema.names}")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """The rows of one row group.

    Attributes
    ----------
    columns
        A sequence of values for every column but ``mel``: NumPy arrays, or lists with
        ``None`` for a null label.
    mel
        float32 [rows, n_mels, n_frames], C-contiguous; written from where it lies.
    """

    columns: Mapping[str, Sequence[Any] | Array]
    mel: Float32Array

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return len(self.mel)


def to_columns(batch: RowBatch, schema: RowSchema) -> dict[str, Any]:
    """Give every column but ``mel`` as an Arrow array of the type that the schema says.

    Parameters
    ----------
    batch
        Rows that are to be written.
    schema
        The dataset's columns.

    Returns
    -------
    dict of str to pyarrow.Array
        In the schema's order.

    Raises
    ------
    ValueError
        If columns or lengths differ from the schema's, a value cannot be held exactly,
        or a column that is no label has a null.
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
        raise ValueError(f"column {name!r} has {array.null_count} nulls; only labels may")
    return array


def _convert(values: Sequence[Any] | Array, kind: Any) -> Any:
    scalar = kind.value_type if pa.types.is_list(kind) else kind
    if not pa.types.is_integer(scalar) or isinstance(values, np.ndarray):
        return pa.array(values, kind)
    # Asked for integers, Arrow makes 1 of a Python 1.5; its casts refuse to.
    found = pa.array(values)
    floats = "double" in str(found.type)
    return found.cast(kind) if floats else pa.array(values, kind)


def to_table(batch: RowBatch, schema: RowSchema) -> Any:
    """Give the batch as a ``pyarrow.Table`` whose ``mel`` lies where the batch has it.

    Parameters
    ----------
    batch
        Rows that are to be written.
    schema
        The dataset's columns.

    Raises
    ------
    ValueError
        If the batch is not of the schema (see :func:`to_columns`), or empty.
    """
    columns = to_columns(batch, schema)
    return pa.Table.from_arrays(
        [*columns.values(), _mel_column(check_mel(batch, schema))], schema=schema.arrow()
    )


def check_mel(batch: RowBatch, schema: RowSchema) -> Float32Array:
    """Give the batch's ``mel``, or raise ``ValueError`` where it is not the schema's.

    Examples
    --------
    >>> check_mel(RowBatch({}, np.zeros((2, 3, 4))), RowSchema(n_mels=3, n_frames=4))
    Traceback (most recent call last):
    ...
    ValueError: mel is float64 [2, 3, 4], not C-contiguous float32 [rows, 3, 4]
    """
    mel = batch.mel
    right = mel.dtype == np.float32 and mel.flags.c_contiguous and mel.size > 0
    if not right or mel.shape[1:] != (schema.n_mels, schema.n_frames):
        raise ValueError(
            f"mel is {mel.dtype} {list(mel.shape)}, not C-contiguous float32 "
            f"[rows, {schema.n_mels}, {schema.n_frames}]"
        )
    return mel


def _mel_column(mel: Float32Array) -> Any:
    rows, n_mels, n_frames = mel.shape
    if mel.size > np.iinfo(np.int32).max:
        raise ValueError(f"{rows} rows of mel are more than one row group can index")
    inner = _lists(pa.array(mel.reshape(-1)), rows * n_mels, n_frames)
    return _lists(inner, rows, n_mels)


def _lists(values: Any, count: int, length: int) -> Any:
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(length))
    return pa.ListArray.from_arrays(offsets, values, type=list_of(values.type))


def round_to_resolution(mel: Float32Array, step: float | None) -> None:
    """Round values to multiples of a step, in place.

    The trailing bits that rounding clears are what compresses away: at 1/64 dB a shard
    is half the size. That needs a power of two, whose multiples float32 holds exactly.

    Parameters
    ----------
    mel
        float32 of any shape; finite values below 2**126 * step.
    step
        The resolution, in the unit of ``mel``: a power of two. ``None`` rounds nothing.

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
    ValueError: a resolution of 0.01 is not a power of two, so rounding would save nothing
    """
    if step is None:
        return
    if math.frexp(step)[0] != 0.5:
        raise ValueError(
            f"a resolution of {step} is not a power of two, so rounding would save nothing"
        )
    np.multiply(mel, np.float32(1 / step), out=mel)
    np.rint(mel, out=mel)
    np.multiply(mel, np.float32(step), out=mel)
