"""The files that TensorFlow Datasets needs next to TFRecord or ArrayRecord shards.

TFDS opens a directory with ``features.json``, ``dataset_info.json`` and numbered shards.
This module makes the content of both documents and the shards' names as plain values,
without TensorFlow; the export writes the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.naming import shard_number
from melmill.transforms.rows.schema import RowSchema

Json = dict[str, Any]

FileFormat = Literal["tfrecord", "array_record"]

_CLASSES = "tensorflow_datasets.core.features"

# An Example has only float32. TFDS reads a missing bool as False, which looks like a label,
# but a missing int64 as the smallest int64, which does not.
_DTYPES = {"float": "float32", "double": "float32", "bool": "int64"}


@dataclass(frozen=True, slots=True)
class TfdsShard:
    """A file of a split: its number of rows and its size."""

    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TfdsSplit:
    """A split, with its shards in the order of their TFDS numbers."""

    name: str
    shards: tuple[TfdsShard, ...]


def features(schema: RowSchema, file_format: FileFormat = "tfrecord") -> Json:
    """Return the content of ``features.json``.

    Parameters
    ----------
    schema
        Columns of the dataset.
    file_format
        Format of the shards.

    Returns
    -------
    dict
        Features: arrays as tensors (integers as bytes), core columns as scalars, scalar labels
        and features that are numbers as optional scalars (TFDS gives a null as ``""``, the smallest
        int64 or the smallest float32), list labels as sequences (a null is an empty sequence). From
        ArrayRecord a null is ``None``.
    """
    labels = {label.name for label in schema.labels}
    columns = {
        name: _list_in_array_record(kind)
        if kind.startswith("list<") and file_format == "array_record"
        else _feature(kind, optional=name in labels)
        for name, kind in schema.columns().items()
    }
    arrays = {c.name: _array(c) for c in schema.features}
    return {
        "pythonClassName": f"{_CLASSES}.features_dict.FeaturesDict",
        "featuresDict": {"features": columns | arrays},
    }


def _array(column: FeatureColumn) -> Json:
    if column.flac_rate_hz:
        return _feature("string", optional=False)
    if column.is_number:
        return _feature("float", optional=True)
    encoding = "none" if column.dtype == "float32" else "bytes"
    return _tensor("tensor_feature.Tensor", column.dtype, shape=column.shape, encoding=encoding)


def _feature(kind: str, *, optional: bool) -> Json:
    if kind.startswith("list<"):
        return {
            "pythonClassName": f"{_CLASSES}.sequence_feature.Sequence",
            "sequence": {"feature": _feature(kind[5:-1], optional=False), "length": "-1"},
        }
    # TFDS's own Text feature would fit strings, but its JSON loses "optional".
    return _tensor("scalar.Scalar", _DTYPES.get(kind, kind), optional=optional)


def _list_in_array_record(kind: str) -> Json:
    # Without TensorFlow, TFDS fails to read an empty sequence.
    scalar = kind[5:-1]
    return _tensor("tensor_feature.Tensor", _DTYPES.get(scalar, scalar), shape=(-1,))


def _tensor(
    cls: str,
    dtype: str,
    *,
    shape: tuple[int, ...] = (),
    optional: bool = False,
    encoding: str = "none",
) -> Json:
    dimensions: Json = {"dimensions": [str(n) for n in shape]} if shape else {}
    tensor: Json = {"dtype": dtype, "encoding": encoding, "shape": dimensions}
    if optional:
        tensor["optional"] = True
    return {"pythonClassName": f"{_CLASSES}.{cls}", "tensor": tensor}


def dataset_info(
    name: str,
    version: str,
    splits: Iterable[TfdsSplit],
    *,
    description: str = "",
    file_format: FileFormat = "tfrecord",
) -> Json:
    """Return the content of ``dataset_info.json``.

    Parameters
    ----------
    name
        Name of the dataset: TFDS requires an identifier.
    version
        Version ``x.y.z`` of three numbers.
    splits
        All splits; a split without shards is left out, because TFDS cannot open it.
    description
        Text for human readers.
    file_format
        Format of the shards.

    Raises
    ------
    ValueError
        If TFDS does not accept the name or the version.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, flags=re.ASCII):
        raise ValueError(
            f"TFDS does not accept the dataset name {name!r}: start with a letter, and use only "
            "letters, digits and _"
        )
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version, flags=re.ASCII):
        raise ValueError(
            f"TFDS does not accept the version {version!r}: use three numbers, such as 1.0.0"
        )
    return {
        "name": name,
        "version": version,
        "description": description,
        "fileFormat": file_format,
        "splits": [_split_info(split) for split in splits if split.shards],
    }


def _split_info(split: TfdsSplit) -> Json:
    return {
        "name": split.name,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        # In protobuf's JSON, an int64 is a string.
        "shardLengths": [str(shard.rows) for shard in split.shards],
        "numBytes": str(sum(shard.size_bytes for shard in split.shards)),
    }


def shard_file(
    dataset: str, split: str, number: int, count: int, file_format: FileFormat = "tfrecord"
) -> str:
    """Return TFDS's name for a file of a split.

    Examples
    --------
    >>> shard_file("birds", "train", 0, 1)
    'birds-train.tfrecord-00000-of-00001'
    """
    return f"{dataset}-{split}.{file_format}-{shard_number(number, count)}"
