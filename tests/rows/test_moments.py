"""Moments: NumPy's in float64, however the rows were divided."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from melmill.transforms.rows.moments import Moments


def rows(number: int = 40, offset: float = 0.0, scale: float = 20.0, seed: int = 0) -> np.ndarray:
    """Float32 [number, 8, 130]: each band about a mean of its own."""
    noise = np.random.default_rng(seed).normal(0, scale, (number, 8, 130))
    return np.float32(noise + offset + np.linspace(-5, 5, 8)[:, None])


@pytest.mark.parametrize("offset", [0.0, -80.0, 1e3, 1e5])
def test_mean_and_deviation_are_numpys(offset: float) -> None:
    mel = rows(offset=offset)
    exact = mel.astype(np.float64)
    moments = Moments.of(mel)
    # 8 ulp of float32 in the deviations; none of it grows with the offset.
    assert_allclose(moments.mean, exact.mean(axis=(0, 2)), rtol=1e-12, atol=1e-6)
    assert_allclose(moments.std, exact.std(axis=(0, 2)), rtol=1e-6)


def test_a_small_deviation_survives_a_large_offset() -> None:
    mel = rows(offset=1e4, scale=0.01)
    exact = mel.astype(np.float64).std(axis=(0, 2))
    assert_allclose(Moments.of(mel).std, exact, rtol=1e-5)


def test_the_extremes_are_of_all_bands() -> None:
    mel = rows()
    moments = Moments.of(mel)
    assert (moments.low, moments.high) == (mel.min(), mel.max())


def test_constant_bands_have_no_deviation() -> None:
    assert_array_equal(Moments.of(np.full((3, 2, 5), -80.1, np.float32)).std, [0, 0])


def assert_alike(one: Moments, other: Moments, rtol: float) -> None:
    assert (one.count, one.low, one.high) == (other.count, other.low, other.high)
    assert_allclose(one.mean, other.mean, rtol=rtol)
    assert_allclose(one.m2, other.m2, rtol=rtol)


@pytest.mark.parametrize("sizes", [(10, 20, 10), (1, 38, 1), (39, 0, 1)])
def test_merged_parts_are_the_whole(sizes: tuple[int, ...]) -> None:
    mel, merged = rows(offset=-40), Moments.empty(8)
    for part in np.split(mel, np.cumsum(sizes)[:-1]):
        merged = merged.merge(Moments.of(part)) if len(part) else merged
    assert_alike(merged, Moments.of(mel), rtol=1e-5)


def test_the_order_of_merging_matters_to_the_last_bits_only() -> None:
    a, b, c = (Moments.of(rows(n, offset=-40.0 * n, seed=n)) for n in (3, 1, 2))
    assert_alike(a.merge(b).merge(c), a.merge(b.merge(c)), rtol=1e-12)
    assert_alike(a.merge(b), b.merge(a), rtol=1e-12)


def test_nothing_adds_nothing() -> None:
    something = Moments.of(rows())
    assert something.merge(Moments.empty(8)) is something
    assert Moments.empty(8).merge(something) is something


def test_nothing_has_no_deviation() -> None:
    nothing = Moments.empty(2).merge(Moments.empty(2))
    assert np.isnan(nothing.std).all()
    assert (nothing.low, nothing.high) == (np.inf, -np.inf)
