"""How often each row occurs in an epoch, so that rows come in proportion to weights.

A row with the count 2.5 occurs two or three times, a row with the count 0.1 in every tenth epoch on
average. The counts are added up row by row, and a row occurs whenever the sum passes one of as many
evenly spaced points as the epoch has rows (systematic sampling). So every epoch has the same number
of rows, each class has its share to within one row for each run of rows of one class, and every row
occurs sooner or later. Sums are integers, exact on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.randomness import Int64Array, random_numbers

#: A count of 1 in the fixed-point numbers of this module.
_ONE = 1 << 24


@dataclass(frozen=True)
class Repeats:
    """How often each row of a split occurs in an epoch.

    Attributes
    ----------
    run_starts
        The first row of each run of rows with equal counts, and the number of rows, int64
        [runs + 1].
    counts
        The count of each row of a run, in units of 2^-24, int64 [runs].
    shift
        The place of the first point times :attr:`total`, from 0 to the sum of all counts minus 1:
        it differs between epochs.
    """

    run_starts: Int64Array
    counts: Int64Array
    shift: int = 0

    @cached_property
    def _sums(self) -> Int64Array:
        """The sum of the counts before each run, and of all, int64 [runs + 1]."""
        return np.concatenate([[0], np.cumsum(np.diff(self.run_starts) * self.counts)])

    @property
    def total(self) -> int:
        """The number of rows in every epoch."""
        return int(self._sums[-1]) // _ONE

    def of_epoch(self, *key: int | str) -> Repeats:
        """Return the repeats of an epoch, whose first point is random."""
        shift = int(random_numbers(1, *key, "repeats")[0] % np.uint64(max(1, self._sums[-1])))
        return Repeats(self.run_starts, self.counts, shift)

    def of_ranges(self, starts: Int64Array, ends: Int64Array) -> Repeats:
        """Return the repeats of some ranges of rows, laid end to end.

        Parameters
        ----------
        starts, ends
            The first row of each range, and the row after its last row, int64 [ranges].
        """
        first = np.searchsorted(self.run_starts, starts, side="right") - 1
        after = np.searchsorted(self.run_starts, ends, side="left")
        pairs = zip(first.tolist(), after.tolist(), strict=True)
        parts = [np.arange(*pair, dtype=np.int64) for pair in pairs]
        runs = np.concatenate([np.zeros(0, np.int64), *parts])
        which = np.repeat(np.arange(len(starts)), after - first)
        begin = np.maximum(self.run_starts[runs], starts[which])
        lengths = np.minimum(self.run_starts[runs + 1], ends[which]) - begin
        borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Repeats(borders, self.counts[runs])

    def before(self, rows: Int64Array) -> Int64Array:
        """Return how many rows of the epoch come from rows before each of the given ones.

        Parameters
        ----------
        rows
            Numbers of rows in the split, or their number, int64 [n].
        """
        sums = self.sums(rows)
        if not self.total:
            return np.zeros(len(sums), np.int64)
        # A first guess, which is too low by one to three, and then the exact count.
        guess = np.floor((sums - self.shift / self.total) * (self.total / int(self._sums[-1])))
        counted: Int64Array = np.clip(guess - 1, 0, self.total).astype(np.int64)
        for _ in range(3):
            counted += (counted < self.total) & (self._points(counted) < sums)
        return counted

    def _points(self, occurrences: Int64Array) -> Int64Array:
        """Return the largest whole number up to the point of each of the epoch's rows.

        The point of row i is (i · sum + shift) / total; the products are divided before they
        overflow.
        """
        rest = int(self._sums[-1]) - self.total * _ONE
        points: Int64Array = occurrences * _ONE + (occurrences * rest + self.shift) // self.total
        return points

    def sums(self, rows: Int64Array) -> Int64Array:
        """Return the sum of the counts of all rows before each of the given ones, in 2^-24."""
        run = np.searchsorted(self.run_starts, rows, side="right") - 1
        run = np.minimum(run, len(self.counts) - 1)
        sums: Int64Array = self._sums[run] + (rows - self.run_starts[run]) * self.counts[run]
        return sums

    def rows(self, occurrences: Int64Array) -> Int64Array:
        """Return the row of the split for each of the epoch's rows, in the order of the files.

        Parameters
        ----------
        occurrences
            Numbers of the epoch's rows before shuffling, from 0 to ``total - 1``, int64 [n].
        """
        # A row occurs where the sum after it passes the point.
        needed = self._points(occurrences) + 1
        run = np.searchsorted(self._sums[1:], needed, side="left")
        inside = -(-(needed - self._sums[run]) // self.counts[run]) - 1
        rows: Int64Array = self.run_starts[run] + inside
        return rows


def repeats_by_class(
    classes: npt.NDArray[np.int32], names: list[str], weights: Mapping[str, float]
) -> Repeats:
    """Return repeats that give each class its share of the rows; the epoch keeps its length.

    Parameters
    ----------
    classes
        The number of the class of each row, in the order of the files, int32 [rows].
    names
        The names of the classes.
    weights
        The weight of each class: a class with twice the weight of another gets twice as many rows.
        A class without a weight gets no rows.

    Raises
    ------
    ConfigError
        A weight is negative, infinite or NaN, a name is not a class, or no class has rows and a
        positive weight.
    """
    for name, weight in weights.items():
        if name not in names:
            known = ", ".join(sorted(names)[:20])
            raise ConfigError(f"weights: there is no class {name!r}; there are: {known}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"weights: {name!r} has the weight {weight}; give 0 or a number > 0")
    rows_of = np.bincount(classes, minlength=len(names))
    chosen = np.array([weights.get(name, 0.0) for name in names]) * (rows_of > 0)
    if not chosen.sum():
        raise ConfigError("weights: no class with rows has a positive weight")
    return _by_counts(classes, len(classes) * chosen / chosen.sum() / np.maximum(rows_of, 1))


def _by_counts(classes: npt.NDArray[np.int32], counts: npt.NDArray[np.float64]) -> Repeats:
    borders = np.flatnonzero(np.diff(classes)) + 1
    starts = np.concatenate([[0], borders, [len(classes)]]).astype(np.int64)
    fixed = np.round(counts * _ONE).astype(np.int64)
    return Repeats(starts, fixed[classes[starts[:-1]]])
