"""Test the robust space: against the known distribution, and with outliers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from melmill.transforms.patterns.clusters import Centres
from melmill.transforms.patterns.space import Space, robust_scale


def normal(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated normal vectors, and the inverse of their covariance."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(6, 6)) @ np.diag([5, 4, 3, 3, 2, 2])
    return (rng.normal(size=(rows, 6)) @ mixing + 50).astype(np.float32), np.linalg.inv(
        mixing.T @ mixing
    )


def distances(space: Space, vectors: np.ndarray) -> np.ndarray:
    return space.distances(space.points(vectors))


def test_distances_are_those_of_mahalanobis_for_normal_vectors():
    vectors, inverse = normal(20_000)
    space = Space.fit(vectors)
    centred = vectors - 50.0
    expected = np.sqrt(np.einsum("ij,jk,ik->i", centred, inverse, centred))
    measured = distances(space, vectors)
    assert np.median(measured) == pytest.approx(1)
    # All components are kept, or all but one with less than 1 % of the variance.
    if space.matrix.shape[1] == 6:
        np.testing.assert_allclose(measured, expected / np.median(expected), rtol=0.1, atol=0.05)
    assert spearmanr(measured, expected).statistic > 0.9


def test_a_fifth_of_outliers_does_not_hide_an_outlier():
    vectors, _ = normal(1000)
    vectors[:200] += 500
    measured = distances(Space.fit(vectors), vectors)
    assert measured[:200].min() > 3 * measured[200:].max()


def test_one_outlier_in_a_single_dimension_comes_first():
    vectors, _ = normal(500)
    vectors[77, 3] += 400
    assert distances(Space.fit(vectors), vectors).argmax() == 77


def test_the_scale_of_a_dimension_does_not_matter():
    vectors, _ = normal(300)
    scaled = vectors * np.float32([1, 10, 100, 0.1, 1, 1000]) + np.float32(7)
    before, after = (distances(Space.fit(sample), sample) for sample in (vectors, scaled))
    np.testing.assert_allclose(before, after, rtol=1e-2)


def test_points_of_a_mean_are_means_of_points():
    vectors, _ = normal(300)
    space = Space.fit(vectors)
    mean = vectors[:10].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        space.points(mean), space.points(vectors[:10]).mean(axis=0), atol=1e-4
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_equal_vectors_have_no_distance(rows):
    space = Space.fit(np.full((rows, 4), 3.5, np.float32))
    assert distances(space, np.full((rows, 4), 3.5, np.float32)).tolist() == [0] * rows


@pytest.mark.filterwarnings("error")
def test_a_dimension_in_which_most_are_equal_still_counts():
    vectors, _ = normal(200)
    vectors[:, 2] = 5
    vectors[3, 2] = 6
    assert distances(Space.fit(vectors), vectors).argmax() == 3
    assert robust_scale(np.ones((3, 2), np.float32))[1].tolist() == [0, 0]


def test_clusters_are_the_groups_and_are_the_same_each_time():
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [20, 0], [0, 30]])
    groups = np.repeat([0, 1, 2], [50, 20, 5])
    points = middles[groups] + rng.normal(size=(75, 2))
    centres = Centres.find(points, 3)
    numbers = [centres.nearest(point)[0] for point in points]
    for group in range(3):
        assert (
            len({number for number, own in zip(numbers, groups, strict=True) if own == group}) == 1
        )
    assert len(set(numbers)) == 3
    assert np.median([centres.nearest(point)[1] for point in points]) == pytest.approx(1)
    np.testing.assert_array_equal(Centres.find(points, 3).places, centres.places)


@pytest.mark.filterwarnings("error")
def test_as_many_clusters_as_recordings():
    centres = Centres.find(np.array([[0.0, 1], [5, 5], [9, 0]]), 3)
    assert sorted(centres.places[:, 0].tolist()) == [0, 5, 9]
    assert Centres.find(np.zeros((4, 2)), 1).nearest(np.zeros(2)) == (0, 0.0)
