"""Normalization of bands to mean 0 and standard deviation 1, in a view of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import Float32Array, RowBatch

#: Kind of normalization: none, or with the mean and standard deviation of each band over the
#: training split, the chunk, or the recording. Features without bands (waveforms) stay as they are.
Normalization = Literal["none", "global", "per_chunk", "per_recording"]

#: Identifier of a recording, and name of a feature.
BandsOf = tuple[str, str]

#: Smallest divisor, in the unit of the feature: the standard deviation of digital silence is 0.
MIN_STD = 1e-5


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


def standardize_chunks(bands: Float32Array) -> npt.NDArray[np.float32]:
    """Return each band of each chunk with mean 0 and standard deviation 1.

    Parameters
    ----------
    bands : float32 [rows, bands, frames]
    """
    mean, std = bands.mean(axis=2, dtype=np.float64), bands.std(axis=2, dtype=np.float64)
    return standardize(bands, mean, std)


def standardize_recordings(
    batch: RowBatch, feature: str, moments: Mapping[BandsOf, Moments]
) -> npt.NDArray[np.float32]:
    """Return each row with mean 0 and standard deviation 1 for each band of its recording.

    Parameters
    ----------
    batch
        Rows of any recordings.
    feature
        Name of the feature.
    moments
        Moments of the feature's bands in each recording.
    """
    of_rows = [moments[name, feature] for name in batch.columns["recording_id"]]
    mean, std = (np.stack([getattr(part, name) for part in of_rows]) for name in ("mean", "std"))
    return standardize(batch.features[feature], mean, std)


def measure_recordings(batches: Iterable[RowBatch]) -> dict[BandsOf, Moments]:
    """Return the moments of the bands of each recording in the rows."""
    moments: dict[BandsOf, Moments] = {}
    for batch in batches:
        for name, rows in _runs(batch.columns["recording_id"]):
            for feature in banded(batch):
                part, key = Moments.of(batch.features[feature][rows]), (name, feature)
                moments[key] = moments[key].merge(part) if key in moments else part
    return moments


def banded(batch: RowBatch) -> list[str]:
    """Return the names of the features that have bands, and can be normalized."""
    arrays = batch.features.items()
    return [name for name, values in arrays if values.ndim == 3 and values.dtype == np.float32]


def _runs(names: Sequence[Any] | npt.NDArray[Any]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, run in groupby(names):
        stop = start + sum(1 for _ in run)
        yield name, slice(start, stop)
        start = stop
