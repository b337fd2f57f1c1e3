"""Normalization of mel bands to mean 0 and standard deviation 1, in a view of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import Float32Array, RowBatch

#: Kind of normalization: none, or with the mean and standard deviation of each mel band over the
#: training split, the chunk, or the recording.
Normalization = Literal["none", "global", "per_chunk", "per_recording"]

#: Smallest divisor, in the unit of ``mel``: the standard deviation of digital silence is 0.
MIN_STD = 1e-5


def check_normalization(name: str) -> Normalization:
    """Return a normalization's name; raise ``ConfigError`` if the name is unknown."""
    allowed = get_args(Normalization)
    if name not in allowed:
        raise ConfigError(f"--normalize {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(Normalization, name)


def standardize(
    mel: Float32Array, mean: npt.ArrayLike, std: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Return each band minus its mean, divided by its standard deviation.

    Parameters
    ----------
    mel : float32 [..., n_mels, frames]
    mean, std : [..., n_mels]
        Mean and standard deviation; they are first rounded to float32, so that code that
        normalizes at load time gets the same values.

    Examples
    --------
    >>> standardize(np.array([[1, 3], [5, 5]], np.float32), [2, 5], [1, 0]).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    centre = np.asarray(mean, np.float32)[..., np.newaxis]
    width = np.maximum(np.asarray(std, np.float32), np.float32(MIN_STD))[..., np.newaxis]
    normalized: npt.NDArray[np.float32] = np.divide(mel - centre, width, dtype=np.float32)
    return normalized


def standardize_chunks(mel: Float32Array) -> npt.NDArray[np.float32]:
    """Return each band of each chunk with mean 0 and standard deviation 1.

    Parameters
    ----------
    mel : float32 [rows, n_mels, frames]
    """
    mean, std = mel.mean(axis=2, dtype=np.float64), mel.std(axis=2, dtype=np.float64)
    return standardize(mel, mean, std)


def standardize_recordings(
    batch: RowBatch, moments: Mapping[str, Moments]
) -> npt.NDArray[np.float32]:
    """Return each row with mean 0 and standard deviation 1 for each band of its recording.

    Parameters
    ----------
    batch
        Rows of any recordings.
    moments
        Moments of each recording, by ``recording_id``.
    """
    ids = batch.columns["recording_id"]
    mean = np.stack([moments[name].mean for name in ids])
    return standardize(batch.mel, mean, np.stack([moments[name].std for name in ids]))


def measure_recordings(batches: Iterable[RowBatch]) -> dict[str, Moments]:
    """Return the moments of each recording in the rows.

    Returns
    -------
    dict
        Moments by ``recording_id``.
    """
    moments: dict[str, Moments] = {}
    for batch in batches:
        for name, rows in _runs(batch.columns["recording_id"]):
            part = Moments.of(batch.mel[rows])
            moments[name] = moments[name].merge(part) if name in moments else part
    return moments


def _runs(names: Sequence[Any] | npt.NDArray[Any]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, run in groupby(names):
        stop = start + sum(1 for _ in run)
        yield name, slice(start, stop)
        start = stop
