"""The space in which chunks are compared: principal components with robust centre and scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.patterns.vectors import Vectors

Points: TypeAlias = npt.NDArray[np.float64]

#: Standard deviation of normally distributed values, over their median absolute deviation.
_MAD_TO_STD = 1.4826
#: Share of the variance that the components have, unless there are fewer than 10 chunks for each.
_SHARE, _CHUNKS_PER_COMPONENT = 0.99, 10
#: Largest deviation of a coordinate, in its scale, that counts in full for the components: a few
#: outliers then do not take all of them.
_LARGEST = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Principal components of a sample of chunks, with robust centre and scale.

    A vector becomes a point, of one coordinate for each component. The distance of a point from the
    centre, :meth:`distances`, is 1 for the median chunk of the sample.

    The coordinates of the vectors are divided by their median absolute deviation (MAD) from the
    median, their principal components are computed, and the components are centred and divided in
    the same way: steps 1 to 3 of P. Filzmoser, R. Maronna and M. Werner, "Outlier identification in
    high dimensions", Computational Statistics & Data Analysis 52 (2008), without its weights.

    Attributes
    ----------
    centre : float64 [dimensions]
        Median of the vectors.
    matrix : float64 [dimensions, components]
        Linear map from vectors minus the centre to points.
    origin : float64 [components]
        Median of the mapped vectors.
    spread : float64 [components]
        Scale of each component, by which it was divided.
    unit
        Median distance.
    """

    centre: Points
    matrix: Points
    origin: Points
    spread: Points
    unit: float

    @classmethod
    def fit(cls, sample: Vectors) -> Space:
        """Return the space of a sample of vectors, float32 [chunks, dimensions], at least one."""
        centre, scale = robust_scale(sample)
        varies = scale > 0
        scaled = sample[:, varies] - centre[varies].astype(np.float32)
        scaled /= scale[varies].astype(np.float32)
        axes = _principal_axes(np.clip(scaled, -_LARGEST, _LARGEST))
        origin, spread = robust_scale(scaled @ axes)
        axes, origin, spread = axes[:, spread > 0], origin[spread > 0], spread[spread > 0]
        matrix = np.zeros((len(centre), len(spread)))
        matrix[varies] = axes / spread / scale[varies, np.newaxis]
        space = cls(centre, matrix, origin / spread, spread, 1.0)
        unit = float(np.median(space.distances(space.points(sample))))
        return replace(space, unit=unit or 1.0)

    def points(self, vectors: Vectors) -> Points:
        """Return the points of vectors, float64 [chunks, components]."""
        points: Points = (vectors - self.centre) @ self.matrix - self.origin
        return points

    def distances(self, points: Points, other: Points | float = 0.0) -> Points:
        """Return the distances of points from another point, or from the centre."""
        distances: Points = np.linalg.norm(points - other, axis=-1) / self.unit
        return distances

    def unscaled(self, points: Points) -> Points:
        """Return points whose components have their own scale: the first ones count the most."""
        unscaled: Points = points * self.spread
        return unscaled


def robust_scale(values: npt.NDArray[Any]) -> tuple[Points, Points]:
    """Return the median of columns, and their MAD times 1.4826.

    The scale of a column of which more than half of the values are equal is its standard
    deviation; it is 0 if all are equal.

    >>> robust_scale(np.array([[1.0, 7, 0], [2, 7, 0], [3, 7, 9]]))[1].round(2).tolist()
    [1.48, 0.0, 4.24]
    """
    centre = np.median(values, axis=0)
    scale = _MAD_TO_STD * np.median(np.abs(values - centre), axis=0).astype(np.float64)
    deviation = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0, dtype=np.float64), 0.0)
    return centre.astype(np.float64), np.where(scale > 0, scale, deviation)


def _principal_axes(scaled: Vectors) -> Points:
    """Return the axes with nearly all of the variance, float64 [dimensions, components]."""
    centred = scaled - scaled.mean(axis=0)
    variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(centred))
    variances, axes = variances[::-1].clip(0), axes[:, ::-1]
    shares = np.cumsum(variances) / max(variances.sum(), np.finfo(float).tiny)
    most = max(1, min(len(axes), len(scaled) // _CHUNKS_PER_COMPONENT))
    number = min(most, 1 + int(np.searchsorted(shares, _SHARE)))
    kept: Points = axes[:, :number]
    return kept
