"""Vectors: what stands for a chunk in the space where chunks are compared."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.feature_columns import FeatureColumn

Vectors: TypeAlias = npt.NDArray[np.float32]
#: How a chunk becomes a vector: by the moments of its bands, or as it is.
Form = Literal["bands", "embedding"]


def form_of(column: FeatureColumn, kind: str) -> Form | None:
    """Return how a feature is made into vectors; ``None`` for a feature that cannot be compared.

    Parameters
    ----------
    column
        Column of the feature.
    kind
        Kind of the feature in the recipe.

    Examples
    --------
    >>> form_of(FeatureColumn("mel", (128, 130)), "mel")
    'bands'
    >>> form_of(FeatureColumn("panns", (2048,)), "model")
    'embedding'
    >>> form_of(FeatureColumn("waveform", (16_000,)), "waveform")
    >>> form_of(FeatureColumn("quality_level_rms", ()), "measures")
    """
    if kind in ("waveform", "measures") or column.dtype != "float32":
        return None
    if kind == "model":
        return "embedding" if len(column.shape) == 1 else None
    return "bands"


def to_vectors(values: npt.NDArray[Any], valid_share: npt.NDArray[Any], form: Form) -> Vectors:
    """Return the vectors of chunks.

    The vector of a spectrogram has the mean and the standard deviation of each band over the
    frames that are not padding: timbre and loudness, and how much they change. An embedding is its
    own vector.

    Parameters
    ----------
    values : float32 [chunks, bands, frames] or [chunks, dimensions]
        Feature of each chunk.
    valid_share : float [chunks]
        Share of each chunk that is not padding.
    form
        See :func:`form_of`.

    Returns
    -------
    float32 [chunks, 2 · bands] or [chunks, dimensions]

    Examples
    --------
    >>> to_vectors(np.float32([[[1, 3, 9], [5, 5, 9]]]), np.array([0.6]), "bands").tolist()
    [[2.0, 5.0, 1.0, 0.0]]
    """
    if form == "embedding":
        return values
    frames = values.shape[2]
    valid = np.clip(np.ceil(valid_share * frames), 1, frames)[:, np.newaxis]
    is_valid = (np.arange(frames) < valid).astype(np.float32)
    counts = valid.astype(np.float32)
    means = np.einsum("cbf,cf->cb", values, is_valid) / counts
    deviations = values - means[:, :, np.newaxis]
    squares = np.einsum("cbf,cbf,cf->cb", deviations, deviations, is_valid) / counts
    return np.concatenate([means, np.sqrt(squares)], axis=1)
