"""Tests of moments: they equal NumPy's in float64, however the rows are divided."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from melmill.transforms.rows.moments import Moments


def rows(number: int = 40, offset: float = 0.0, scale: float = 20.0, seed: int = 0) -> np.ndarray:
    """Return float32 [number, 8, 130]; each band has its own mean."""
    noise = np.random.default_rng(seed).normal(0, scale, (number, 8, 130))
    return np.float32(noise + offset + np.linspace(-5, 5, 8)[:, None])


@pytest.mark.parametrize("offset", [0.0, -80.0, 1e3, 1e5])
def test_mean_and_deviation_are_numpys(offset: float) -> None:
    mel = rows(offset=offset)
    exact = mel.astype(np.float64)
    moments = Moments.of(mel)
    # The deviations may differ by 8 ulp of float32, whatever the offset.
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


@pytest.mark.parametrize("offset", [0.0, -80.0, 1e4])
def test_frames_of_padding_are_not_counted(offset: float) -> None:
    mel = rows(offset=offset)
    valid = np.random.default_rng(1).integers(0, 131, len(mel))
    valid[16:32] = 130  # a step without padding
    mel[np.broadcast_to(np.arange(130) >= valid[:, None, None], mel.shape)] = 1e6
    counted = np.concatenate(
        [row[:, :number] for row, number in zip(mel, valid, strict=True)], axis=1
    ).astype(np.float64)
    moments = Moments.of(mel, valid.tolist())
    assert moments.count == valid.sum()
    assert_allclose(moments.mean, counted.mean(axis=1), rtol=1e-12, atol=1e-6)
    assert_allclose(moments.std, counted.std(axis=1), rtol=1e-6)
    assert (moments.low, moments.high) == (counted.min(), counted.max())


def test_samples_of_padding_are_not_counted() -> None:
    samples = np.array([[3, -5, 0, 0], [32767, 0, 0, 0]], np.int16)
    moments = Moments.of(samples, [2, 1])
    assert (moments.count, moments.low, moments.high) == (3, -5, 32767)
    assert_allclose(moments.mean, [32765 / 3])
    assert_allclose(moments.std, [np.std([3, -5, 32767])])


def test_rows_of_padding_alone_have_the_moments_of_nothing() -> None:
    assert Moments.of(rows(3), [0, 0, 0]).count == 0


def assert_alike(first: Moments, second: Moments, rtol: float) -> None:
    assert (first.count, first.low, first.high) == (second.count, second.low, second.high)
    assert_allclose(first.mean, second.mean, rtol=rtol)
    assert_allclose(first.m2, second.m2, rtol=rtol)


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


def test_empty_moments_add_nothing() -> None:
    moments = Moments.of(rows())
    assert moments.merge(Moments.empty(8)) is moments
    assert Moments.empty(8).merge(moments) is moments


def test_empty_moments_have_no_deviation() -> None:
    moments = Moments.empty(2).merge(Moments.empty(2))
    assert np.isnan(moments.std).all()
    assert (moments.low, moments.high) == (np.inf, -np.inf)


def test_a_null_number_is_not_counted() -> None:
    moments = Moments.of(np.array([1, np.nan, 4], np.float32))
    assert (moments.count, moments.mean.tolist(), moments.std.tolist()) == (2, [2.5], [1.5])
    assert (moments.low, moments.high) == (1, 4)


def test_nulls_alone_have_the_moments_of_nothing() -> None:
    nothing = Moments.of(np.full(20, np.nan, np.float32))
    assert nothing.count == 0
    merged = nothing.merge(Moments.of(np.ones(3, np.float32))).merge(nothing)
    assert (merged.count, merged.mean.tolist()) == (3, [1.0])
