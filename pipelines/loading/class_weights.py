"""The weights of classes: a label is read once, and decides how often each row occurs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.repeats import Repeats, repeats_by_class

#: A label whose classes are equally frequent, or a label with the weight of each class.
ClassWeights = str | Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Weighting:
    """How often each row of a split occurs.

    Attributes
    ----------
    repeats
        How often each row occurs.
    text
        Text that says from which weights this follows.
    """

    repeats: Repeats
    text: str


def label_of(weights: ClassWeights) -> str:
    """Return the label that class weights are about; raise ``ConfigError`` unless it is one."""
    labels = [weights] if isinstance(weights, str) else list(weights)
    if len(labels) != 1:
        raise ConfigError(f"class_weights: {labels} are {len(labels)} labels; give one label")
    return labels[0]


def weigh_classes(rows: Any, weights: ClassWeights) -> Weighting:
    """Return how often each row occurs; reads the label of every row once.

    Parameters
    ----------
    rows
        The split, as a ``pyarrow.dataset.Dataset`` in the order of its files.
    weights
        The label, whose classes all get the same number of rows, or the weight of each class.

    Raises
    ------
    ConfigError
        See :func:`~melmill.transforms.loading.repeats.repeats_by_class`.
    """
    label = label_of(weights)
    classes, names = _read_classes(rows, label)
    given = dict.fromkeys(names, 1.0) if isinstance(weights, str) else dict(weights[label])
    text = json.dumps([label, sorted(given.items())])
    return Weighting(repeats_by_class(classes, names, given), text)


def _read_classes(rows: Any, label: str) -> tuple[Any, list[str]]:
    """Return the number of the class of each row, int32 [rows], and the classes' names."""
    numbers: dict[str, int] = {}
    parts = []
    # Not to_batches() of Arrow's scanner: it aborts an interpreter that ends in its middle.
    with rows.scanner(columns=[label], use_threads=False).to_reader() as reader:
        for batch in reader:
            encoded = pc.dictionary_encode(batch.column(0).cast(pa.string()))
            names = encoded.dictionary.to_pylist()
            own = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)
            parts.append(own[encoded.indices.to_numpy()] if names else np.zeros(0, np.int32))
    return np.concatenate(parts), list(numbers)
