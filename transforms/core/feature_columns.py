"""The columns of features, described without the libraries that store them.

Decoder processes import this module, and need no Arrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Types that the values of a feature may have, by NumPy's names.
FeatureType = Literal["float32", "int16", "int32"]


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """A column of features: an array of the same shape in every row, or a number.

    Attributes
    ----------
    name
        Name of the column.
    shape
        Shape of a row's array: ``(bands, frames)``, ``(samples,)``, or the shape of a model's
        output; ``()`` for a number.
    dtype
        NumPy's name of the values' type.
    flac_rate_hz
        Sample rate of a waveform that files hold as FLAC; 0 for an array that they hold as such.
    valid
        Column of the rows that counts the frames or samples, from the first on, that are not
        padding. ``""`` if no column counts them: the last axis is not time, or an older melmill
        wrote the rows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: FeatureType = "float32"
    # Not part of the repr, from which names of runs are made.
    flac_rate_hz: int = field(default=0, repr=False)
    valid: str = field(default="", repr=False)

    @property
    def is_number(self) -> bool:
        """Whether a row has a single number, which may be null: NaN in arrays, null in files.

        >>> [FeatureColumn("f", shape).is_number for shape in ((), (16_000,))]
        [True, False]
        """
        return not self.shape

    @property
    def has_bands(self) -> bool:
        """Whether the first of two axes of floats is the axis of bands.

        >>> [FeatureColumn("f", shape).has_bands for shape in ((128, 130), (16_000,))]
        [True, False]
        """
        return len(self.shape) == 2 and self.dtype == "float32"

    @property
    def bands(self) -> int:
        """Number of bands; an array without an axis of bands counts as one band."""
        return self.shape[0] if self.has_bands else 1

    @property
    def row_bytes(self) -> int:
        """Size of a row's array, in bytes.

        >>> FeatureColumn("waveform", (16_000,), "int16").row_bytes
        32000
        """
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def type(self) -> str:
        """Name of the column's type.

        >>> FeatureColumn("mel", (128, 130)).type, FeatureColumn("quality_level_rms", ()).type
        ('list<list<float>>', 'float')
        """
        if self.flac_rate_hz:
            return "binary"
        scalar = "float" if self.dtype == "float32" else self.dtype
        return len(self.shape) * "list<" + scalar + len(self.shape) * ">"

    @property
    def leaf(self) -> str:
        """Name of the column of values in a Parquet file."""
        return self.name + (not self.flac_rate_hz) * len(self.shape) * ".list.element"
