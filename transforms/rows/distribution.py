"""The distribution of rows over levels and over the classes of their labels.

It is counted per row group and stored with each shard, so that the counts of shards can be
added without opening the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.rows.schema import RowBatch

#: Edges between the bins of ``peak_dbfs`` and ``rms_dbfs``, in dB re full scale; lower and
#: higher values have a bin of their own at each end.
LEVEL_EDGES_DBFS = tuple(range(-96, 7, 3))
#: Edges between the bins of recordings' durations, in seconds; the first bin begins at 0.
DURATION_EDGES_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120),
    *(300, 600, 1200, 1800, 3600, 7200, 18_000),
)
#: Largest number of classes; a label with more values does not name classes.
MAX_CLASSES = 1000

LEVELS = ("peak_dbfs", "rms_dbfs")

#: Name under which the numbers of variants are counted; no label has it.
VARIANTS = ""

#: A label's value that can be a class; ``None`` for a row without a value.
Class = str | bool | int | None


@dataclass(frozen=True, slots=True)
class ClassCount:
    """The number of rows and recordings with a label's value.

    Attributes
    ----------
    column, value
        Label and its value, or a single value from its list.
    rows, recordings
        Number of rows and number of recordings with the value.
    """

    column: str
    value: Class
    rows: int
    recordings: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of the rows of a shard or a split.

    Attributes
    ----------
    peak_dbfs, rms_dbfs
        Number of rows in each bin between :data:`LEVEL_EDGES_DBFS`; empty if nothing was
        counted.
    classes
        Counts for labels of strings, integers, booleans, or lists of them, and for the numbers of
        variants (:data:`VARIANTS`); sorted.
    many
        Names of such labels with more than :data:`MAX_CLASSES` values, which are not counted.
    """

    peak_dbfs: tuple[int, ...] = ()
    rms_dbfs: tuple[int, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    many: tuple[str, ...] = ()


def histogram(values: npt.ArrayLike, edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the numbers of values below the first edge, between edges, and from the last on.

    >>> histogram([-np.inf, 0, 1, 5], (0, 2)).tolist()
    [1, 2, 1]
    """
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="right")
    return np.bincount(bins, minlength=len(edges) + 1)


@dataclass(slots=True)
class DistributionCounter:
    """A counter that makes a :class:`Distribution` from rows or from other distributions."""

    levels: dict[str, npt.NDArray[np.int64]] = field(
        default_factory=lambda: {name: histogram((), LEVEL_EDGES_DBFS) for name in LEVELS}
    )
    classes: dict[str, dict[Class, tuple[int, int]]] = field(default_factory=dict)
    many: set[str] = field(default_factory=set)

    def count(
        self, batch: RowBatch, labels: Sequence[LabelColumn], *, with_variants: bool = False
    ) -> None:
        """Add the rows of a row group; the numbers of variants are counted like a label."""
        for name in LEVELS:
            self.levels[name] += histogram(batch.columns[name], LEVEL_EDGES_DBFS)
        # A recording is counted at its first row, because its rows may lie in several shards.
        is_first = np.asarray(batch.columns["chunk_index"]) == 0
        is_first &= np.asarray(batch.columns.get("channel", 0)) == 0
        if with_variants:
            variant = np.asarray(batch.columns["variant"])
            for number, first in zip(variant.tolist(), is_first.tolist(), strict=True):
                self._add(VARIANTS, number, 1, first)
            is_first &= variant == 0
        for label in labels:
            if "double" not in label.type:
                values = batch.columns[label.name]
                for value, first in zip(values, is_first.tolist(), strict=True):
                    for label_class in _classes(value):
                        self._add(label.name, label_class, 1, first)

    def add(self, part: Distribution) -> None:
        """Add the distribution of a part."""
        for name in LEVELS:
            if counts := getattr(part, name):
                self.levels[name] += np.array(counts)
        for column in part.many:
            self._drop(column)
        for entry in part.classes:
            self._add(entry.column, entry.value, entry.rows, entry.recordings)

    def _add(self, column: str, value: Class, rows: int, recordings: int) -> None:
        if column in self.many:
            return
        classes = self.classes.setdefault(column, {})
        counts = classes.get(value, (0, 0))
        classes[value] = counts[0] + rows, counts[1] + recordings
        if len(classes) > MAX_CLASSES:
            self._drop(column)

    def _drop(self, column: str) -> None:
        self.classes.pop(column, None)
        self.many.add(column)

    def total(self) -> Distribution:
        """Return the distribution of all rows that were added."""
        classes = [
            ClassCount(column, value, *counts)
            for column, values in self.classes.items()
            for value, counts in values.items()
        ]
        peak, rms = (tuple(self.levels[name].tolist()) for name in LEVELS)
        ordered = tuple(sorted(classes, key=_order))
        return Distribution(peak, rms, ordered, tuple(sorted(self.many)))


def _classes(value: Any) -> Iterator[Class]:
    # A list's values without repeats, in an order that does not depend on hashes; an empty list is
    # no value.
    yield from dict.fromkeys(value or (None,)) if isinstance(value, list | tuple) else (value,)


def _order(entry: ClassCount) -> tuple[str, str]:
    return entry.column, repr(entry.value)


def balance(splits: Mapping[str, Distribution]) -> dict[str, dict[str, Any]]:
    """Return how the recordings of each split are distributed over the classes of each label.

    Returns
    -------
    dict
        By label: ``classes`` (number of classes), ``missing`` (by split, the classes without a
        recording in the split) and ``largest_difference`` (between a class's share in a split
        and its share in all splits: ``split``, ``value``, ``share``, ``overall``). Labels with
        a single class or with too many classes are left out.

    Examples
    --------
    >>> report = balance({
    ...     "train": Distribution(
    ...         classes=(ClassCount("key", "C", 9, 3), ClassCount("key", "D", 1, 1))
    ...     ),
    ...     "test": Distribution(classes=(ClassCount("key", "C", 2, 1),)),
    ... })
    >>> report["key"]["missing"], report["key"]["largest_difference"]
    ({'test': ['D']}, {'split': 'test', 'value': 'C', 'share': 1.0, 'overall': 0.8})
    """
    many = {column for split in splits.values() for column in split.many}
    counts: dict[str, dict[str, dict[Class, int]]] = {}
    for name, split in splits.items():
        for entry in (entry for entry in split.classes if entry.column != VARIANTS):
            by_split = counts.setdefault(entry.column, {name: {} for name in splits})
            by_split[name][entry.value] = entry.recordings
    return {
        column: comparison
        for column, by_split in counts.items()
        if column not in many and (comparison := _compare(by_split))
    }


def _compare(by_split: Mapping[str, Mapping[Class, int]]) -> dict[str, Any] | None:
    overall: dict[Class, int] = {}
    for counts in by_split.values():
        for value, number in counts.items():
            overall[value] = overall.get(value, 0) + number
    if len(overall) < 2:
        return None
    classes = sorted(overall, key=repr)
    differences: list[dict[str, Any]] = [
        {
            "split": name,
            "value": value,
            "share": counts.get(value, 0) / max(1, sum(counts.values())),
            "overall": overall[value] / max(1, sum(overall.values())),
        }
        for name, counts in by_split.items()
        for value in classes
    ]
    missing = {
        name: [value for value in classes if not counts.get(value)]
        for name, counts in by_split.items()
    }
    return {
        "classes": len(classes),
        "missing": {name: values for name, values in missing.items() if values},
        "largest_difference": max(differences, key=_difference),
    }


def _difference(entry: Mapping[str, Any]) -> float:
    # With two classes, both have the same difference: a rounding error must not choose one.
    difference: float = entry["share"] - entry["overall"]
    return round(abs(difference), 12)
