"""Conversion of FFmpeg's sample formats to float32 in libsndfile's scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Full scale of integer samples, as in libsndfile.
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


def to_float(samples: npt.NDArray[Any], frame: Any) -> npt.NDArray[np.float32]:
    """Return a frame's samples as float32 [frames, channels], in libsndfile's scale.

    The memory layout is C or Fortran order.
    """
    kind = frame.format.name.removesuffix("p")
    channels = frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    converted = samples.astype(np.float32, copy=False)
    if kind not in _FULL_SCALE:
        return converted
    if kind == "u8":
        converted -= np.float32(_FULL_SCALE[kind])
    converted *= np.float32(1 / _FULL_SCALE[kind])
    return converted
