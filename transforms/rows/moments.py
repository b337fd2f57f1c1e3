"""Mean and standard deviation of each band of a feature, computed per row group and merged.

Sums of squares about zero lose the digits that a standard deviation needs. These moments
are about the mean, and two parts are merged by the formula of Chan, Golub and LeVeque
("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

#: Number of rows in a step: their deviations from the mean fit into the processor's cache.
_ROWS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations, per band.

    See :attr:`~melmill.transforms.core.feature_columns.FeatureColumn.bands`.

    Attributes
    ----------
    count
        Number of values in each band.
    mean, m2 : float64 [bands]
        Mean, and sum of squared deviations from the mean.
    low, high : float
        Smallest and largest value in all bands.
    """

    count: int
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    low: float
    high: float

    @classmethod
    def empty(cls, bands: int) -> Moments:
        """Return the moments of no values."""
        zeros = np.zeros(bands)
        return cls(0, zeros, zeros, float("inf"), float("-inf"))

    @classmethod
    def of(
        cls, values: npt.NDArray[Any], valid: Sequence[int] | npt.NDArray[Any] | None = None
    ) -> Moments:
        """Return the moments of rows.

        Parameters
        ----------
        values : float32, int16 or int32 [rows, bands, frames] or [rows, ...]
            If a row has a single number, NaN stands for null, and is not counted.
        valid : [rows]
            Number of frames of each row, or of samples, from the first on, that are counted;
            ``None`` counts all.

        Examples
        --------
        >>> moments = Moments.of(np.array([[[1, 3], [5, 5]]], np.float32))
        >>> moments.mean.tolist(), moments.std.tolist()
        ([2.0, 5.0], [1.0, 0.0])
        >>> Moments.of(np.array([[[1, -80], [5, -80]]], np.float32), [1]).mean.tolist()
        [1.0, 5.0]
        """
        if values.ndim == 1:
            values = values[~np.isnan(values)]
        has_bands = values.ndim == 3 and values.dtype == np.float32
        bands = values if has_bands else values.reshape(len(values), 1, math.prod(values.shape[1:]))
        frames = bands.shape[2]
        lengths = np.full(len(bands), frames) if valid is None else np.asarray(valid)
        slices = (slice(start, start + _ROWS) for start in range(0, len(bands), _ROWS))
        parts = (cls._of_part(bands[part], lengths[part]) for part in slices)
        return reduce(cls.merge, parts, cls.empty(bands.shape[1]))

    @classmethod
    def _of_part(cls, bands: npt.NDArray[Any], valid: npt.NDArray[Any]) -> Moments:
        if bands.shape[1] == 1:
            # Sums of a whole chunk of samples, which may be large, need double precision.
            bands = bands.astype(np.float64)
        frames = bands.shape[2]
        count = int(np.minimum(valid, frames).sum())
        if not count:
            return cls.empty(bands.shape[1])
        is_counted: Any = True
        if count < len(bands) * frames:
            is_counted = np.arange(frames) < valid[:, np.newaxis, np.newaxis]
        counted = bands if is_counted is True else np.where(is_counted, bands, 0)
        mean = counted.sum(axis=2, dtype=np.float64).sum(axis=0) / count
        centred = bands - mean.astype(np.float32)[:, np.newaxis]
        if is_counted is not True:
            centred *= is_counted
        # Frames of a row are summed in float32, rows in float64.
        sums = centred.sum(axis=2).sum(axis=0, dtype=np.float64)
        squares = np.einsum("rmf,rmf->rm", centred, centred).sum(axis=0, dtype=np.float64)
        rounded = mean.astype(np.float32).astype(np.float64)
        return cls(
            count,
            rounded + sums / count,
            np.maximum(squares - sums**2 / count, 0.0),
            float(bands.min(initial=np.inf, where=is_counted)),
            float(bands.max(initial=-np.inf, where=is_counted)),
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of two parts together; the order changes only the last bits."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation of each band; NaN if there are no values."""
        if not self.count:
            return np.full_like(self.mean, np.nan)
        return np.sqrt(self.m2 / self.count)
