"""Standardization of a chunk's bands: minus a mean, divided by a standard deviation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.features.logarithm import Contradiction, Finite, NonNegative, Positive


@dataclass(frozen=True, slots=True)
class StandardizationSpec:
    """Settings of the standardization: (mel − mean) / standard deviation.

    Attributes
    ----------
    mean, std
        Mean and standard deviation: a number for all bands, or ``band`` for each band's own over
        the frames of the chunk.
    ddof
        Number that is subtracted from the number of frames for a variance: 0 or 1.
    variance_epsilon, std_epsilon
        Numbers added to a band's variance, and to its standard deviation (``std: band`` only).
    """

    mean: Finite | Literal["band"] = "band"
    std: Positive | Literal["band"] = "band"
    ddof: Literal[0, 1] = 0
    variance_epsilon: NonNegative = 0.0
    std_epsilon: NonNegative = 0.0


def standardization_contradictions(
    spec: StandardizationSpec, n_frames: int
) -> Iterator[Contradiction]:
    """Yield each setting that another setting or the number of frames makes impossible.

    Yields
    ------
    (key, value, allowed)
        See :func:`~melmill.transforms.features.mel_spec.contradictions`.

    Examples
    --------
    >>> list(standardization_contradictions(StandardizationSpec(std=2.0, ddof=1), 100))
    [('standardization.ddof', 1, '0 where standardization.std is a number')]
    """
    if spec.std != "band":
        for name in ("ddof", "variance_epsilon", "std_epsilon"):
            if value := getattr(spec, name):
                allowed = f"{type(value)(0)} where standardization.std is a number"
                yield f"standardization.{name}", value, allowed
    elif spec.ddof >= n_frames:
        yield "standardization.ddof", spec.ddof, "0 where a chunk has one frame"


def standardize_bands(mel: NDArray[np.float32], spec: StandardizationSpec) -> None:
    """Replace the values of one chunk by their standardized values.

    A band whose standard deviation and epsilons are all 0 becomes 0.

    Parameters
    ----------
    mel
        Values of shape [n_mels, n_frames], float32. Overwritten.
    spec
        Settings of the standardization.
    """
    n_frames = mel.shape[1]
    if not n_frames:
        return
    values = mel.astype(np.float64)
    mean, std = spec.mean, spec.std
    if std == "band":
        enough = n_frames > spec.ddof
        variance = values.var(axis=1, keepdims=True, ddof=spec.ddof) if enough else 0.0
        std = np.sqrt(variance + spec.variance_epsilon) + spec.std_epsilon
    if mean == "band":
        mean = values.mean(axis=1, keepdims=True)
    mel[:] = (values - mean) * np.greater(std, 0) / np.where(np.greater(std, 0), std, 1)
