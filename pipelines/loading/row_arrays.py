"""The arrays of a batch, filled row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.pipelines.loading.cuts import Cuts
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.schema import RowBatch


def plain_value(stored: RowBatch, name: str, row: int) -> Any:
    """Return a value of a row: a copy of an array, or a Python value."""
    features = stored.features.get(name)
    value = stored.columns[name][row] if features is None else features[row]
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value


class RowArrays:
    """The arrays of a batch: one for each feature, and a list for each other column.

    Parameters
    ----------
    columns
        The columns to give.
    features
        The features among them, by name.
    cuts
        How features are cut.
    fractions
        Where the crop of each row lies, from 0 to 1, float64 [rows].
    """

    def __init__(
        self,
        columns: Sequence[str],
        features: Mapping[str, FeatureColumn],
        cuts: Cuts,
        fractions: npt.NDArray[np.float64],
    ) -> None:
        """Make empty arrays."""
        rows = len(fractions)
        self._arrays = {n: features[n] for n in columns if n in features and features[n].shape}
        self._cuts, self._fractions = cuts, fractions
        self._values: dict[str, Any] = {name: [None] * rows for name in columns}
        for name, column in self._arrays.items():
            shape = (rows, *column.shape[:-1], cuts.length(column))
            self._values[name] = np.empty(shape, column.dtype)
        self._lengths = {name: [0] * rows for name, own in self._arrays.items() if own.valid}

    def put(self, target: int, stored: RowBatch, row: int) -> None:
        """Copy a row to its place in the batch."""
        for name, values in self._values.items():
            if name in self._arrays:
                values[target] = self._cut(name, target, stored, row)
            else:
                values[target] = plain_value(stored, name, row)

    def _cut(self, name: str, target: int, stored: RowBatch, row: int) -> Any:
        column, array = self._arrays[name], stored.features[name][row]
        if not self._cuts.is_needed or not column.valid:
            return array
        valid = int(stored.columns[column.valid][row])
        start, length = self._cuts.place(column, valid, float(self._fractions[target]))
        self._lengths[name][target] = length
        return array[..., start : start + self._cuts.length(column)]

    def finish(self) -> dict[str, Any]:
        """Return the batch."""
        return self._cuts.finish(self._values, self._lengths)
