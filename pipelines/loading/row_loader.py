"""Rows at positions of an order, as arrays; windows are kept while their rows are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.row_arrays import RowArrays, plain_value
from melmill.pipelines.loading.window_reader import LoadedWindow, WindowReader
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.loading.lengths import order_by_length, random_fractions
from melmill.transforms.loading.mixing import Mixture
from melmill.transforms.loading.randomness import Int64Array
from melmill.transforms.loading.state import OrderIdentity

#: A window: the number of its source, of the lane, of the epoch, and of the window in it.
WindowKey = tuple[int, int, int, int]


@dataclass(frozen=True)
class RowLoader:
    """Gives the rows at positions of an order.

    One window of each lane and source that is read is in memory: as many as `kept_windows` says.

    Attributes
    ----------
    mixture
        The order of the rows.
    readers
        Reads the windows of each source.
    columns
        The columns to give.
    features
        The features among them, by name.
    identity
        What the order depends on, for states.
    kept_windows
        The number of windows of each lane and source that stay in memory.
    cuts
        How features are cut.
    """

    mixture: Mixture
    readers: tuple[WindowReader, ...]
    columns: list[str]
    features: Mapping[str, FeatureColumn]
    identity: OrderIdentity
    kept_windows: int = 1
    cuts: Cuts = field(default_factory=Cuts)
    _windows: dict[WindowKey, LoadedWindow] = field(default_factory=dict, init=False, repr=False)

    @property
    def rows(self) -> int:
        """The number of rows in an epoch."""
        return self.mixture.rows

    def batch(self, epoch: int, positions: Int64Array) -> dict[str, Any]:
        """Return the rows at some positions of an epoch, in their order.

        Parameters
        ----------
        epoch
            The epoch, from 0.
        positions
            Positions in the epoch, from 0, int64 [n].

        Returns
        -------
        dict
            An array [n, ...] for each feature, and a list of values for each other column; with
            masks also ``NAME_length``, int64 [n], and ``NAME_mask``, bool [n, longest], of each
            feature.

        Raises
        ------
        DatasetError
            A shard cannot be read.
        """
        fractions = np.zeros(len(positions))
        if self.cuts.crops:
            fractions = random_fractions(positions, self.mixture.order.seed, epoch)
        arrays = RowArrays(self.columns, self.features, self.cuts, fractions)
        targets: dict[WindowKey, list[tuple[int, int]]] = {}
        for target, (key, number) in enumerate(self.places(epoch, positions)):
            targets.setdefault(key, []).append((target, number))
        # In the order of the windows: a batch may end one window of a lane and begin the next.
        for key in sorted(targets):
            self._fill(arrays, key, targets[key])
        return arrays.finish()

    def places(self, epoch: int, positions: Int64Array) -> list[tuple[WindowKey, int]]:
        """Return the window of each position of an epoch, and the row's number in the window."""
        places = self.mixture.places(epoch, positions)
        parts = places.sources, places.lanes, places.epochs, places.windows
        keys = zip(*(part.tolist() for part in parts), strict=True)
        return list(zip(keys, places.numbers.tolist(), strict=True))

    def row(self, key: WindowKey, number: int) -> dict[str, Any]:
        """Return a row of a window by itself: copies of its arrays, and Python values."""
        stored, row = self._window(key).row(number)
        return {name: plain_value(stored, name, row) for name in self.columns}

    def _fill(self, arrays: RowArrays, key: WindowKey, targets: list[tuple[int, int]]) -> None:
        """Copy rows of a window to a batch; afterwards nothing here refers to the window."""
        window = self._window(key)
        for target, number in targets:
            arrays.put(target, *window.row(number))

    def _window(self, key: WindowKey) -> LoadedWindow:
        window = self._windows.get(key)
        if window is None:
            same_lane = [known for known in self._windows if known[:2] == key[:2]]
            for known in same_lane[: len(same_lane) - self.kept_windows + 1]:
                del self._windows[known]  # before the next window is read
            window = self._windows[key] = self._read(*key)
        return window

    def _read(self, source: int, lane: int, epoch: int, number: int) -> LoadedWindow:
        order = self.mixture.order
        window = self.mixture.lane_order(source, lane, epoch).window(number)
        loaded = self.readers[source].read(window, self.mixture.parts[source][lane].split)
        if not order.bucket_by:
            return loaded
        key = () if order.seed is None else (order.seed, source, lane, epoch, number)
        return loaded.in_order(order_by_length(loaded.column(order.bucket_by), *key))

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: not the rows in memory."""
        return {**vars(self), "_windows": {}}
