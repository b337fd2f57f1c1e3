"""Clusters: groups of recordings for a first look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melmill.transforms.patterns.space import Points

#: Seed of the first centres, and number of attempts; the best one counts.
_SEED, _ATTEMPTS = 0, 8


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """The centres of clusters.

    Attributes
    ----------
    places : float64 [clusters, components]
        Centres.
    unit
        Median distance of recordings from their centres.
    """

    places: Points
    unit: float

    @classmethod
    def find(cls, points: Points, number: int) -> Centres:
        """Return the centres that k-means finds (SciPy's ``kmeans2``, k-means++).

        Parameters
        ----------
        points : float64 [recordings, components]
            Points of a sample of recordings.
        number
            Number of clusters, at most that of recordings.
        """
        from scipy.cluster.vq import kmeans2  # imported here, because it takes a tenth of a second

        generator, attempts = np.random.default_rng(_SEED), []
        for _ in range(_ATTEMPTS):
            places, numbers = kmeans2(points, number, minit="++", seed=generator)
            distances = np.linalg.norm(points - places[numbers], axis=1)
            attempts.append((float(np.square(distances).sum()), places, distances))
        _, places, distances = min(attempts, key=lambda attempt: attempt[0])
        return cls(places, float(np.median(distances)) or 1.0)

    def nearest(self, point: Points) -> tuple[int, float]:
        """Return the number of the centre that is nearest to a point, and its distance.

        >>> Centres(np.array([[3.0, 1.0], [0.0, 0.0]]), 0.5).nearest(np.array([0.0, 1.0]))
        (1, 2.0)
        """
        distances = np.linalg.norm(self.places - point, axis=1)
        number = int(distances.argmin())
        return number, float(distances[number]) / self.unit
