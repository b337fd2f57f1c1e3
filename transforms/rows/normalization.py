"""Mel bands brought to mean 0 and standard deviation 1, on request, in a view of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import Float32Array, RowBatch

#: Over what a mel band's mean and standard deviation are taken: the training split, the
#: chunk, or the recording.
Normalization = Literal["none", "global", "per_chunk", "per_recording"]

#: The least standard deviation that is divided by, in the unit of ``mel``; digital silence
#: has none.
MIN_STD = 1e-5


def check_normalization(name: str) -> Normalization:
    """Give a normalisation's name back; ``ConfigError`` where there is none of that name."""
    allowed = get_args(Normalization)
    if name not in allowed:
        raise ConfigError(f"--normalize {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(Normalization, name)


def standardize(
    mel: Float32Array, mean: npt.ArrayLike, std: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Subtract a mean from each band, and divide by a standard deviation.

    Parameters
    ----------
    mel : float32 [..., n_mels, frames]
    mean, std : [..., n_mels]
        Rounded to float32 first, as whoever does it at load time has them.

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
    """Bring each band of each chunk to mean 0 and standard deviation 1.

    Parameters
    ----------
    mel : float32 [rows, n_mels, frames]
    """
    mean, std = mel.mean(axis=2, dtype=np.float64), mel.std(axis=2, dtype=np.float64)
    return standardize(mel, mean, std)


def standardize_recordings(
    batch: RowBatch, moments: Mapping[str, Moments]
) -> npt.NDArray[np.float32]:
    """Bring each band of each recording to mean 0 and standard deviation 1.

    Parameters
    ----------
    batch
        Rows of any recordings.
    moments
        Of each of them, by ``recording_id``.
    """
    ids = batch.columns["recording_id"]
    mean = np.stack([moments[name].mean for name in ids])
    return standardize(batch.mel, mean, np.stack([moments[name].std for name in ids]))


def measure_recordings(batches: Iterable[RowBatch]) -> dict[str, Moments]:
    """Measure the bands of each recording that the rows are of.

    Returns
    -------
    dict
        Moments by ``recording_id``.
    """
    found: dict[str, Moments] = {}
    for batch in batches:
        for name, rows in _runs(batch.columns["recording_id"]):
            part = Moments.of(batch.mel[rows])
            found[name] = found[name].merge(part) if name in found else part
    return found


def _runs(names: Sequence[Any] | npt.NDArray[Any]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, run in groupby(names):
        stop = start + sum(1 for _ in run)
        yield name, slice(start, stop)
        start = stop
