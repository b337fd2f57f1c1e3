"""Test the vectors of chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.patterns.vectors import form_of, to_vectors


@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 7), st.integers(1, 9))
def test_a_vector_has_the_moments_of_the_valid_frames(seed, chunks, bands, frames):
    rng = np.random.default_rng(seed)
    values = rng.normal(-30, 9, (chunks, bands, frames)).astype(np.float32)
    valid = rng.integers(1, frames + 1, chunks)
    vectors = to_vectors(values, valid / frames - 1e-9, "bands")
    assert vectors.dtype == np.float32
    for row, number, vector in zip(values.astype(np.float64), valid, vectors, strict=True):
        expected = np.append(row[:, :number].mean(axis=1), row[:, :number].std(axis=1))
        # Values near -30 in float32 have six digits.
        np.testing.assert_allclose(vector, expected, atol=1e-3)


def test_padding_does_not_count_and_an_empty_share_is_a_frame():
    values = np.float32([[[1, 2, 9]], [[1, 2, 9]], [[1, 2, 9]]])
    vectors = to_vectors(values, np.array([0.0, 0.34, 7.0]), "bands")
    np.testing.assert_allclose(vectors, [[1, 0], [1.5, 0.5], [4, np.sqrt(38 / 3)]], rtol=1e-6)


def test_an_embedding_is_its_own_vector():
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert to_vectors(values, np.ones(3), "embedding") is values


@pytest.mark.parametrize(
    ("column", "kind", "form"),
    [
        (FeatureColumn("a", (40, 100)), "mfcc", "bands"),
        (FeatureColumn("a", (512,)), "model", "embedding"),
        (FeatureColumn("a", (10, 512)), "model", None),
        (FeatureColumn("a", (32,), "int32"), "model", None),
        (FeatureColumn("a", (16_000,), "int16"), "waveform", None),
        (FeatureColumn("a", (16_000,)), "waveform", None),
    ],
)
def test_spectrograms_and_embeddings_can_be_compared(column, kind, form):
    assert form_of(column, kind) == form
