"""Normalization over the valid frames of a chunk or a recording."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.normalization import (
    measure_recordings,
    standardize_chunks,
    standardize_recordings,
)
from melmill.transforms.rows.schema import RowBatch, RowSchema

MEL = FeatureColumn("mel", (3, 10), valid="valid_frames")
VALID = [10, 4, 0, 7]


def bands() -> np.ndarray:
    return np.random.default_rng(0).normal(-40, 20, (4, 3, 10)).astype(np.float32)


def test_a_chunk_is_normalized_over_its_valid_frames() -> None:
    mel = bands()
    normalized = standardize_chunks(mel, VALID)
    for row in (0, 1, 3):
        valid = normalized[row, :, : VALID[row]].astype(np.float64)
        assert_allclose(valid.mean(axis=1), 0, atol=1e-5)
        assert_allclose(valid.std(axis=1), 1, rtol=1e-5)
    whole = standardize_chunks(mel)
    assert_array_equal(whole[0], normalized[0])
    assert (whole[1] != normalized[1]).any()


def test_a_chunk_without_valid_frames_stays_as_it_is() -> None:
    mel = bands()
    assert_array_equal(standardize_chunks(mel, VALID)[2], mel[2])


def batch(ids: list[str], valid: list[int]) -> RowBatch:
    return RowBatch({"recording_id": ids, "valid_frames": valid}, {"mel": bands()})


def test_a_recording_is_normalized_over_its_valid_frames() -> None:
    rows = batch(["a", "b", "b", "b"], VALID)
    mel = rows.features["mel"]
    moments = measure_recordings([rows], RowSchema((MEL,)))
    normalized = standardize_recordings(rows, "mel", moments)
    own = np.concatenate([mel[1, :, :4], mel[3, :, :7]], axis=1).astype(np.float64)
    mean, std = own.mean(axis=1, keepdims=True), own.std(axis=1, keepdims=True)
    assert_allclose(normalized[1:], (mel[1:] - mean) / std, atol=1e-5)


def test_a_variant_is_normalized_like_a_recording_of_its_own() -> None:
    rows = batch(["a", "a", "a", "b"], VALID)
    with_variants = RowBatch({**rows.columns, "variant": [0, 1, 0, 1]}, rows.features)
    schema = RowSchema((MEL,), with_variants=True)
    moments = measure_recordings([with_variants], schema)
    assert len(moments) == 3
    normalized = standardize_recordings(with_variants, "mel", moments, with_variants=True)
    alone = batch(["0", "1", "0", "2"], VALID)
    expected = standardize_recordings(alone, "mel", measure_recordings([alone], RowSchema((MEL,))))
    assert_array_equal(normalized, expected)


def test_a_recording_without_valid_frames_stays_as_it_is() -> None:
    rows = batch(["a", "b", "c", "d"], VALID)
    moments = measure_recordings([rows], RowSchema((MEL,)))
    normalized = standardize_recordings(rows, "mel", moments)
    assert_array_equal(normalized[2], rows.features["mel"][2])


def test_all_frames_count_in_rows_of_an_older_melmill() -> None:
    rows = batch(["a", "b", "c", "d"], VALID)
    moments = measure_recordings([rows], RowSchema((FeatureColumn("mel", (3, 10)),)))
    assert [part.count for part in moments.values()] == [10] * 4
