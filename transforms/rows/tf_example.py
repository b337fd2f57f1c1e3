"""Rows as ``tf.train.Example``, packed and parsed by hand; TensorFlow is not needed.

An Example is a protobuf map from names to lists of bytes, floats or int64. Its bytes here
are those of protobuf's deterministic serialisation (entries sorted by key), about a
hundred times sooner, because ``mel`` goes from its array to the file without becoming
Python floats.

How a row maps to an Example
----------------------------
- Every column is a feature of its name; ``mel`` is its ``n_mels * n_frames`` floats, row
  by row.
- Booleans are int64 0 and 1. A double becomes the nearest float32: Example has no other.
- A null label is a feature that is not there: ``VarLenFeature`` gives no value for it,
  ``FixedLenFeature`` its default or, without one, an error; none gives a made-up 0. An
  empty list is a feature without values. A null *inside* a list has no form and is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.rows.columns import arrow_type
from melmill.transforms.rows.schema import RowBatch, RowSchema, check_mel, to_columns

#: A feature's values, as the Example has them.
Values = list[bytes] | npt.NDArray[np.float32] | npt.NDArray[np.int64]

# Protobuf: a field's tag is number << 3 | wire type; all of these are of type 2, which
# is followed by a length. Field 1 holds the features, a map's key and a list's values.
_FIRST = b"\x0a"
_SECOND = b"\x12"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"

_MAX = 0xFFFFFFFFFFFFFFFF
_ONE_BYTE = [bytes([digit]) for digit in range(0x80)]


def _varint(value: int) -> bytes:
    if 0 <= value <= 0x7F:
        return _ONE_BYTE[value]
    value &= _MAX  # negative numbers: two's complement, ten bytes
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _bytes_list(values: Sequence[str]) -> bytes:
    return _field(_BYTES_LIST, b"".join(_field(_FIRST, value.encode()) for value in values))


def _float_list(values: Sequence[float]) -> bytes:
    packed = struct.pack(f"<{len(values)}f", *values)
    return _field(_FLOAT_LIST, _field(_FIRST, packed) if packed else b"")


def _int64_list(values: Sequence[int]) -> bytes:
    packed = b"".join(map(_varint, values))
    return _field(_INT64_LIST, _field(_FIRST, packed) if packed else b"")


_ENCODERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    "string": _bytes_list,
    "int32": _int64_list,
    "int64": _int64_list,
    "bool": _int64_list,
    "float": _float_list,
    "double": _float_list,
}


def _entry_start(name: str, feature_bytes: int) -> bytes:
    key = _field(_FIRST, name.encode())
    length = _varint(feature_bytes)
    size = len(key) + len(_SECOND) + len(length) + feature_bytes
    return _FIRST + _varint(size) + key + _SECOND + length


def _column_entries(name: str, kind: str, array: Any) -> list[bytes]:
    """Give each row's map entry for a column; nothing for a null."""
    is_list = kind.startswith("list<")
    scalar = kind[5:-1] if is_list else kind
    if is_list and array.flatten().null_count:
        raise CatalogueError(
            f"label {name!r} has a missing value inside a list, which TFRecord cannot hold: "
            f"take it out of the list, or write Parquet only"
        )
    if scalar == "double":  # a value beyond float32 becomes infinite, as in protobuf
        array = array.cast(arrow_type(kind.replace("double", "float")), safe=False)
    encode = _entry_encoder(name, scalar)
    rows = array.to_pylist()
    return [b"" if row is None else encode(tuple(row) if is_list else (row,)) for row in rows]


def _entry_encoder(name: str, kind: str) -> Callable[[tuple[Any, ...]], bytes]:
    encode_list = _ENCODERS[kind]

    def encode(values: tuple[Any, ...]) -> bytes:
        feature = encode_list(values)
        return _entry_start(name, len(feature)) + feature

    # Most values repeat from chunk to chunk. (Not floats; and 0.0 would answer for -0.0.)
    return encode if kind in ("float", "double") else cache(encode)


def _mel_start(n_values: int) -> bytes:
    """Give what stands before the floats of ``mel``: the same in every row."""
    packed = _FIRST + _varint(4 * n_values)
    floats = _FLOAT_LIST + _varint(len(packed) + 4 * n_values) + packed
    return _entry_start("mel", len(floats) + 4 * n_values) + floats


def encode_examples(batch: RowBatch, schema: RowSchema) -> Iterator[bytes]:
    """Serialise each row as a ``tf.train.Example``.

    Parameters
    ----------
    batch
        Rows that are to be written.
    schema
        The dataset's columns.

    Yields
    ------
    bytes
        What ``Example.SerializeToString(deterministic=True)`` would give.

    Raises
    ------
    ValueError
        If the batch is not of the schema.
    CatalogueError
        If a list label has a null inside a list.
    """
    mel = check_mel(batch, schema).astype("<f4", copy=False)
    arrays = to_columns(batch, schema)
    columns = {
        name: _column_entries(name, kind, arrays[name])
        for name, kind in sorted(schema.columns().items())
    }
    before = _joined([column for name, column in columns.items() if name < "mel"])
    after = _joined([column for name, column in columns.items() if name > "mel"])
    start = _mel_start(schema.n_mels * schema.n_frames)
    for head, row, tail in zip(before, mel, after, strict=True):
        size = len(head) + len(start) + row.nbytes + len(tail)
        yield b"".join((_FIRST, _varint(size), head, start, row.data, tail))


def _joined(columns: list[list[bytes]]) -> Iterator[bytes]:
    return map(b"".join, zip(*columns, strict=True))


def parse_example(data: bytes) -> dict[str, Values]:
    """Parse a serialised ``tf.train.Example``.

    Parameters
    ----------
    data
        One record. Lists of numbers must be packed, as all current writers pack them.

    Returns
    -------
    dict
        For each feature its values: a list of bytes, or a float32 or int64 array [n]. A
        feature of no kind is left out, as if it were not there.

    Raises
    ------
    ValueError
        If the bytes are no Example.

    Examples
    --------
    >>> parse_example(bytes.fromhex("0a0c0a0a0a01791205 1a030a0107"))
    {'y': array([7])}
    """
    found = {}
    for features in _contents(data, _FIRST):
        for entry in _contents(features, _FIRST):
            name, values = _parse_entry(entry)
            if values is not None:
                found[name] = values
    return found


def _parse_entry(entry: bytes) -> tuple[str, Values | None]:
    name, values = "", None
    for tag, content in _fields(entry):
        if tag == _FIRST:
            name = content.decode()
        elif tag == _SECOND:
            values = _parse_feature(content)
        else:
            raise ValueError(f"not an Example: a map entry has a field of tag {tag!r}")
    return name, values


def _parse_feature(feature: bytes) -> Values | None:
    values: Values | None = None
    for tag, content in _fields(feature):
        if tag not in _PARSERS:
            raise ValueError(f"not an Example: a feature has a field of tag {tag!r}")
        values = _PARSERS[tag](list(_contents(content, _FIRST)))
    return values


def _parse_floats(packed: list[bytes]) -> Values:
    return np.frombuffer(b"".join(packed), dtype="<f4")


def _parse_int64s(packed: list[bytes]) -> Values:
    data, values, position = b"".join(packed), [], 0
    while position < len(data):
        value, position = _read_varint(data, position)
        values.append(value)
    return np.array(values, dtype=np.uint64).view(np.int64)


def _parse_bytes(values: list[bytes]) -> Values:
    return values


_PARSERS: dict[bytes, Callable[[list[bytes]], Values]] = {
    _BYTES_LIST: _parse_bytes,
    _FLOAT_LIST: _parse_floats,
    _INT64_LIST: _parse_int64s,
}


def _contents(message: bytes, tag: bytes) -> Iterator[bytes]:
    """Give the contents of a message all of whose fields have one tag."""
    for found, content in _fields(message):
        if found != tag:
            raise ValueError(f"not an Example: a field of tag {found!r} where {tag!r} belongs")
        yield content


def _fields(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give tag and content of each length-delimited field."""
    position = 0
    while position < len(message):
        tag = message[position : position + 1]
        length, start = _read_varint(message, position + 1)
        position = start + length
        if position > len(message):
            raise ValueError("not an Example: a field is longer than what holds it")
        yield tag, message[start:position]


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("not an Example: it ends inside a number")
        digit = data[position]
        position += 1
        value |= (digit & 0x7F) << shift
        if digit < 0x80:
            return value & _MAX, position
    raise ValueError("not an Example: a number is longer than ten bytes")
