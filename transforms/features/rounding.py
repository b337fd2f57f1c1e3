"""Rounding of features to a resolution, so that they compress well."""

from __future__ import annotations

import math

import numpy as np

from melmill.transforms.core.feature_columns import Array


def round_to_resolution(mel: Array, step: float | None) -> None:
    """Round values to multiples of a step, in place.

    Rounding clears trailing bits, which then compress well: at 1/64 dB a shard has half the
    size. The step must be a power of two, because float32 holds its multiples exactly.

    Parameters
    ----------
    mel
        Values, float32 of any shape; finite, below 2**126 * step.
    step
        Resolution in the unit of ``mel``: a power of two. ``None`` rounds nothing.

    Raises
    ------
    ValueError
        If the step is not a power of two.

    Examples
    --------
    >>> mel = np.array([-12.345678, 0.01, 3.25], dtype=np.float32)
    >>> round_to_resolution(mel, 1 / 64)
    >>> mel
    array([-12.34375 ,   0.015625,   3.25    ], dtype=float32)
    >>> round_to_resolution(mel, 0.01)
    Traceback (most recent call last):
    ...
    ValueError: the resolution 0.01 is not a power of two, so rounding would save nothing
    """
    if step is None:
        return
    if math.frexp(step)[0] != 0.5:
        raise ValueError(
            f"the resolution {step} is not a power of two, so rounding would save nothing"
        )
    np.multiply(mel, np.float32(1 / step), out=mel)
    np.rint(mel, out=mel)
    np.multiply(mel, np.float32(step), out=mel)
