"""How rows are distributed: over levels, and over the classes that their labels name.

Gathered a row group at a time, kept with each shard, and added up without opening any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.rows.schema import RowBatch

#: Between the bins of ``peak_dbfs`` and ``rms_dbfs``; what is lower, and what is higher, has
#: a bin of its own at either end. In dB re full scale.
LEVEL_EDGES_DBFS = tuple(range(-96, 7, 3))
#: Between the bins of recordings' durations; seconds.
DURATION_EDGES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000)
#: A label of more values than this names things, not classes.
MAX_CLASSES = 1000

LEVELS = ("peak_dbfs", "rms_dbfs")

#: A label's value that can be a class; ``None`` where the row has none.
Class = str | bool | int | None


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often a label has a value.

    Attributes
    ----------
    column, value
        The label and its value, or one of its values where it is a list.
    rows, recordings
        How many have it.
    """

    column: str
    value: Class
    rows: int
    recordings: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of the rows of a shard, or of a split.

    Attributes
    ----------
    peak_dbfs, rms_dbfs
        Rows in each bin between :data:`LEVEL_EDGES_DBFS`; empty where nothing was counted.
    classes
        Of labels of strings, integers, booleans, or lists of them; sorted.
    many
        Such labels of more than :data:`MAX_CLASSES` values, of which none is counted.
    """

    peak_dbfs: tuple[int, ...] = ()
    rms_dbfs: tuple[int, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    many: tuple[str, ...] = ()


def histogram(values: npt.ArrayLike, edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """Count values below the first edge, from each edge to the next, and from the last on.

    >>> histogram([-np.inf, 0, 1, 5], (0, 2)).tolist()
    [1, 2, 1]
    """
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="right")
    return np.bincount(bins, minlength=len(edges) + 1)


@dataclass(slots=True)
class DistributionCounter:
    """Gathers a :class:`Distribution` from rows, or from the distributions of parts."""

    levels: dict[str, npt.NDArray[np.int64]] = field(
        default_factory=lambda: {name: histogram((), LEVEL_EDGES_DBFS) for name in LEVELS}
    )
    classes: dict[str, dict[Class, tuple[int, int]]] = field(default_factory=dict)
    many: set[str] = field(default_factory=set)

    def count(self, batch: RowBatch, labels: Sequence[LabelColumn]) -> None:
        """Take a row group into account."""
        for name in LEVELS:
            self.levels[name] += histogram(batch.columns[name], LEVEL_EDGES_DBFS)
        # A recording is counted where it begins: its rows may lie in several shards.
        first = np.asarray(batch.columns["chunk_index"]) == 0
        first &= np.asarray(batch.columns.get("channel", 0)) == 0
        for label in labels:
            if "double" not in label.type:
                for value, begins in zip(batch.columns[label.name], first.tolist(), strict=True):
                    for one in _classes(value):
                        self._add(label.name, one, 1, begins)

    def add(self, part: Distribution) -> None:
        """Take a part into account."""
        for name in LEVELS:
            if counts := getattr(part, name):
                self.levels[name] += np.array(counts)
        for column in part.many:
            self._forget(column)
        for entry in part.classes:
            self._add(entry.column, entry.value, entry.rows, entry.recordings)

    def _add(self, column: str, value: Class, rows: int, recordings: int) -> None:
        if column in self.many:
            return
        classes = self.classes.setdefault(column, {})
        known = classes.get(value, (0, 0))
        classes[value] = known[0] + rows, known[1] + recordings
        if len(classes) > MAX_CLASSES:
            self._forget(column)

    def _forget(self, column: str) -> None:
        self.classes.pop(column, None)
        self.many.add(column)

    def total(self) -> Distribution:
        """Give what was gathered."""
        classes = [
            ClassCount(column, value, *counts)
            for column, values in self.classes.items()
            for value, counts in values.items()
        ]
        peak, rms = (tuple(self.levels[name].tolist()) for name in LEVELS)
        ordered = tuple(sorted(classes, key=_order))
        return Distribution(peak, rms, ordered, tuple(sorted(self.many)))


def _classes(value: Any) -> Iterator[Class]:
    # Each of a list's values once, in an order that does not depend on hashes.
    yield from dict.fromkeys(value) if isinstance(value, list | tuple) else (value,)


def _order(entry: ClassCount) -> tuple[str, str]:
    return entry.column, repr(entry.value)


def balance(splits: Mapping[str, Distribution]) -> dict[str, dict[str, Any]]:
    """Compare how the recordings of each split are divided among the classes of each label.

    Returns
    -------
    dict
        By label: ``classes`` (their number), ``missing`` (by split, the classes that it has no
        recording of) and ``largest_difference`` (of a class's share in a split from its share
        in all of them: ``split``, ``value``, ``share``, ``overall``). Labels of one class, or
        of too many, are left out.

    Examples
    --------
    >>> found = balance({
    ...     "train": Distribution(
    ...         classes=(ClassCount("key", "C", 9, 3), ClassCount("key", "D", 1, 1))
    ...     ),
    ...     "test": Distribution(classes=(ClassCount("key", "C", 2, 1),)),
    ... })
    >>> found["key"]["missing"], found["key"]["largest_difference"]
    ({'test': ['D']}, {'split': 'test', 'value': 'C', 'share': 1.0, 'overall': 0.8})
    """
    many = {column for split in splits.values() for column in split.many}
    counts: dict[str, dict[str, dict[Class, int]]] = {}
    for name, split in splits.items():
        for entry in split.classes:
            of_split = counts.setdefault(entry.column, {name: {} for name in splits})[name]
            of_split[entry.value] = entry.recordings
    return {
        column: found
        for column, by_split in counts.items()
        if column not in many and (found := _compare(by_split))
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


def _difference(one: Mapping[str, Any]) -> float:
    # Of two classes one gains what the other loses: rounding is not to choose between them.
    difference: float = one["share"] - one["overall"]
    return round(abs(difference), 12)
