"""A split's rows by number, for grain: sources that need no grain to be made.

A source of grain is an object with ``__len__`` and ``__getitem__``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melmill.pipelines.loading.row_loader import RowLoader, WindowKey
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.flac_bytes import decode_flac
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.rows.tf_example import Values, parse_example

#: Number of consecutive rows whose places are computed together, and of such groups that are kept.
_PLACED_ROWS, _KEPT = 256, 8


@dataclass(frozen=True)
class OrderedRows:
    """The rows of the first epochs of an order; row ``i`` is the row at position ``i``.

    Reading the rows one after the other reads each block about once. Reading them in any other
    order reads a whole window for each row.

    Attributes
    ----------
    loader
        Gives the rows, of two windows of each lane: grain's threads read ahead.
    epochs
        The number of epochs.
    """

    loader: RowLoader
    epochs: int
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _placed: dict[tuple[int, int], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if the number of epochs is not positive."""
        if self.epochs < 1:
            raise ConfigError(f"epochs is {self.epochs}; give at least 1")

    def __len__(self) -> int:
        """Return the number of rows in all epochs."""
        return self.epochs * self.loader.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row: arrays of features, and Python values.

        Raises
        ------
        DatasetError
            A shard cannot be read.
        IndexError
            There is no row of this number.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} rows")
        epoch, position = divmod(int(index), self.loader.rows)
        with self._lock:
            return self.loader.row(*self._place(epoch, position))

    def _place(self, epoch: int, position: int) -> tuple[WindowKey, int]:
        group, inside = divmod(position, _PLACED_ROWS)
        placed = self._placed.get((epoch, group))
        if placed is None:
            while len(self._placed) >= _KEPT:
                del self._placed[next(iter(self._placed))]
            first = group * _PLACED_ROWS
            positions = np.arange(first, min(first + _PLACED_ROWS, self.loader.rows))
            placed = self._placed[epoch, group] = self.loader.places(epoch, positions)
        place: tuple[WindowKey, int] = placed[inside]
        return place

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs."""
        return {"loader": self.loader, "epochs": self.epochs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set what came from another process."""
        vars(self).update(state, _lock=threading.Lock(), _placed={})

    def __repr__(self) -> str:
        """Return text that identifies the order, as grain's checkpoints need it."""
        return (
            f"OrderedRows({self.loader.identity!r}, columns={self.loader.columns}, {self.epochs})"
        )


@dataclass(frozen=True)
class RecordRows:
    """The rows of a split of an ArrayRecord view, in the order of its files; each row by itself.

    Attributes
    ----------
    records
        The records, by number.
    columns
        The type of each column to give: a feature, or the name of a type.
    folder
        The view's folder, for messages.
    """

    records: Any
    columns: dict[str, FeatureColumn | str]
    folder: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row: arrays of features, and Python values.

        Raises
        ------
        DatasetError
            The row lacks a column, or a feature has another shape.
        """
        row = parse_example(self.records[int(index)])
        try:
            return {name: _value(row[name], kind) for name, kind in self.columns.items()}
        except (KeyError, ValueError) as error:
            raise DatasetError(
                f"{self.folder}: row {index} lacks what the dataset's rows have ({error}); export "
                "this version of the dataset again"
            ) from error

    def __repr__(self) -> str:
        """Return text that identifies the rows, as grain's checkpoints need it."""
        return f"RecordRows({self.records!r}, columns={list(self.columns)})"


def open_records(folder: str, split: str, schema: RowSchema, columns: list[str]) -> RecordRows:
    """Return the rows of a split of an ArrayRecord view.

    Parameters
    ----------
    folder
        A local folder that ``melmill export --format arrayrecord`` wrote.
    split
        The split.
    schema
        The columns of the dataset that was exported.
    columns
        The columns to give.

    Raises
    ------
    ConfigError
        The package ``array_record`` is not installed.
    DatasetError
        The folder has no files of the split, or the view has no such column.
    """
    files = sorted(map(str, Path(folder).glob(f"*-{split}.array_record-*")))
    if not files:
        raise DatasetError(
            f"{folder}: no ArrayRecord files of the split {split!r}; write them with melmill "
            "export --format arrayrecord"
        )
    kinds: dict[str, FeatureColumn | str] = {**schema.columns()}
    kinds |= {column.name: column for column in schema.features}
    if missing := [name for name in columns if name not in kinds]:
        raise DatasetError(f"{folder}: exports lack the added column {missing[0]!r}; leave it out")
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError as error:
        raise ConfigError(f"as_grain: {error}: pip install 'melmill[arrayrecord]'") from error
    return RecordRows(ArrayRecordDataSource(files), {n: kinds[n] for n in columns}, folder)


def _value(values: Values, kind: FeatureColumn | str) -> Any:
    if isinstance(kind, FeatureColumn):
        return _feature(values, kind)
    items = [v.decode() for v in values] if isinstance(values, list) else values.tolist()
    is_list, scalar = kind.startswith("list<"), kind.removeprefix("list<").removesuffix(">")
    plain = [bool(item) for item in items] if scalar == "bool" else items
    return plain if is_list else plain[0]


def _feature(values: Values, column: FeatureColumn) -> Any:
    if column.is_number:
        return float(values[0])
    if column.flac_rate_hz:
        return decode_flac(values[0], *column.shape)
    if isinstance(values, list):
        values = np.frombuffer(values[0], np.dtype(column.dtype).newbyteorder("<"))
    return values.reshape(column.shape)
