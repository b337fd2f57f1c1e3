"""Normalization of bands to mean 0 and standard deviation 1, in a view of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import Float32Array, RowBatch, RowSchema

#: Kind of normalization: none, or with the mean and standard deviation of each band over the
#: training split, the chunk, or the recording. Features without bands (waveforms) stay as they are.
Normalization = Literal["none", "global", "per_chunk", "per_recording"]

#: Identifier of a recording, with the number of a variant if there are any, and name of a feature.
BandsOf = tuple[str, str]

#: Smallest divisor, in the unit of the feature: the standard deviation of digital silence is 0.
MIN_STD = 1e-5

#: Values with mean 0 and standard deviation 1, which change nothing.
_UNCHANGED = np.array([[-1, 1]], np.float32)


def check_normalization(name: str) -> Normalization:
    """Return a normalization's name; raise ``ConfigError`` if the name is unknown."""
    allowed = get_args(Normalization)
    if name not in allowed:
        raise ConfigError(f"--normalize {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(Normalization, name)


def standardize(
    bands: Float32Array, mean: npt.ArrayLike, std: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Return each band minus its mean, divided by its standard deviation.

    Parameters
    ----------
    bands : float32 [..., bands, frames]
    mean, std : [..., bands]
        Mean and standard deviation; they are first rounded to float32, so that code that
        normalizes at load time gets the same values.

    Examples
    --------
    >>> standardize(np.array([[1, 3], [5, 5]], np.float32), [2, 5], [1, 0]).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    centre = np.asarray(mean, np.float32)[..., np.newaxis]
    width = np.maximum(np.asarray(std, np.float32), np.float32(MIN_STD))[..., np.newaxis]
    normalized: npt.NDArray[np.float32] = np.divide(bands - centre, width, dtype=np.float32)
    return normalized


def standardize_chunks(
    bands: Float32Array, valid: Sequence[int] | npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float32]:
    """Return each band of each chunk with mean 0 and standard deviation 1.

    Parameters
    ----------
    bands : float32 [rows, bands, frames]
    valid : [rows]
        Number of frames of each row, from the first on, over which the mean and the standard
        deviation are computed; ``None`` for all. A row without any stays as it is.
    """
    rows, frames = len(bands), bands.shape[2]
    lengths = [frames] * rows if valid is None else np.minimum(valid, frames)
    normalized = np.empty_like(bands)
    for row, length in enumerate(lengths):
        counted = bands[row, :, :length] if length else _UNCHANGED
        mean, std = counted.mean(axis=1, dtype=np.float64), counted.std(axis=1, dtype=np.float64)
        normalized[row] = standardize(bands[row], mean, std)
    return normalized


def standardize_recordings(
    batch: RowBatch,
    feature: str,
    moments: Mapping[BandsOf, Moments],
    *,
    with_variants: bool = False,
) -> npt.NDArray[np.float32]:
    """Return each row with mean 0 and standard deviation 1 for each band of its recording.

    A variant counts as a recording of its own.

    Parameters
    ----------
    batch
        Rows of any recordings.
    feature
        Name of the feature.
    moments
        Moments of the feature's bands in each recording.
    with_variants
        Whether the rows have variants.
    """
    names = _names(batch, with_variants=with_variants)
    of_rows = [moments[name, feature] for name in names]
    mean = np.stack([part.mean for part in of_rows])
    std = np.stack([part.std if part.count else np.ones_like(part.std) for part in of_rows])
    return standardize(batch.features[feature], mean, std)


def measure_recordings(batches: Iterable[RowBatch], schema: RowSchema) -> dict[BandsOf, Moments]:
    """Return the moments of the bands of each recording in the rows, over its valid frames.

    A variant counts as a recording of its own.
    """
    moments: dict[BandsOf, Moments] = {}
    for batch in batches:
        for name, rows in _runs(_names(batch, with_variants=schema.with_variants)):
            for column in banded(schema):
                valid = valid_of(batch, column)
                counted = None if valid is None else valid[rows]
                part = Moments.of(batch.features[column.name][rows], counted)
                key = name, column.name
                moments[key] = moments[key].merge(part) if key in moments else part
    return moments


def _names(batch: RowBatch, *, with_variants: bool) -> Sequence[Any] | npt.NDArray[Any]:
    """Return a name for each row: that of its recording, with the number of its variant."""
    ids = batch.columns["recording_id"]
    if not with_variants:
        return ids
    return [
        f"{name} {variant}" for name, variant in zip(ids, batch.columns["variant"], strict=True)
    ]


def banded(schema: RowSchema) -> list[FeatureColumn]:
    """Return the features that have bands, and can be normalized."""
    return [column for column in schema.features if column.has_bands]


def valid_of(batch: RowBatch, column: FeatureColumn) -> Sequence[int] | npt.NDArray[Any] | None:
    """Return the number of valid frames or samples of each row; ``None`` if all are counted."""
    return batch.columns[column.valid] if column.valid else None


def _runs(names: Sequence[Any] | npt.NDArray[Any]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, run in groupby(names):
        stop = start + sum(1 for _ in run)
        yield name, slice(start, stop)
        start = stop
