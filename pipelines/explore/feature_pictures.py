"""A stored feature as a picture: one pixel for each value, in the colours of Viridis."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from melmill.pipelines.sound.colours import colour_map
from melmill.transforms.core.feature_columns import Array

Numbers = npt.NDArray[np.uint8]

#: Number of colours of values; one more colour stands for values that are not finite.
LEVELS = 255
_NOT_FINITE = (255, 0, 255)
#: Numbers of the picture of a waveform: the first one is transparent.
_WAVEFORM = (0, 0, 0, 31, 158, 137)
#: Size of the picture of a waveform.
_WAVEFORM_COLUMNS, _WAVEFORM_ROWS = 256, 96


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values of the first and of the last colour; values beyond them get these colours."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> ValueRange:
        """Return the range of an array's finite values.

        >>> ValueRange.of(np.array([1.0, np.nan, 4.0]))
        ValueRange(low=1.0, high=4.0)
        """
        finite = values[np.isfinite(values)]
        return cls(float(finite.min()), float(finite.max())) if finite.size else cls(0.0, 0.0)


@cache
def palette() -> bytes:
    """Return the colours of values, and that of values that are not finite: RGB, 256 times."""
    return colour_map(LEVELS).tobytes() + bytes(_NOT_FINITE)


def levels(values: Array, shown: ValueRange) -> Numbers:
    """Return the number of the colour of each value: uint8, in the shape of the values.

    Examples
    --------
    >>> levels(np.array([0.0, 0.5, 1.0, 2.0, np.inf]), ValueRange(0, 1)).tolist()
    [0, 127, 254, 254, 255]
    """
    width = shown.high - shown.low
    scaled = (values.astype(np.float64) - shown.low) / (width or 1.0)
    numbers = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1) * (LEVELS - 1))
    return np.where(np.isfinite(values), numbers, LEVELS).astype(np.uint8)


def arranged(values: Array) -> Array:
    """Return a feature as rows and columns, the first row at the bottom of a picture.

    A vector becomes a block that is about twice as wide as it is high, if its length allows that:
    its first value is at the left of the first row. Of an array with more than two axes, all but
    the last become one.

    Examples
    --------
    >>> arranged(np.zeros((128, 130))).shape, arranged(np.zeros((4, 3, 5))).shape
    ((128, 130), (12, 5))
    >>> arranged(np.zeros(512)).shape, arranged(np.zeros(7)).shape
    ((16, 32), (1, 7))
    """
    if values.ndim == 1:
        fitting = [rows for rows in range(1, len(values) + 1) if not len(values) % rows]
        return values.reshape(min(fitting, key=lambda rows: abs(rows * rows * 2 - len(values))), -1)
    return values.reshape(-1, values.shape[-1])


def draw_values(values: Array, shown: ValueRange) -> bytes:
    """Return the PNG of a feature: one pixel for each value of :func:`arranged`."""
    return _png(levels(arranged(values), shown), palette())


def draw_waveform(samples: Array, shown: ValueRange) -> bytes:
    """Return the PNG of a waveform: its smallest and largest sample in each of 256 columns.

    A waveform has too many samples for a pixel each.
    """
    columns = min(_WAVEFORM_COLUMNS, len(samples))
    borders = np.arange(columns) * len(samples) // columns
    limits = (np.minimum.reduceat(samples, borders), np.maximum.reduceat(samples, borders))
    middle = max(abs(shown.low), abs(shown.high)) or 1.0
    lowest, highest = (_height(limit, middle) for limit in limits)
    rows = np.arange(_WAVEFORM_ROWS)[:, np.newaxis]
    is_drawn = (rows >= lowest) & (rows <= highest)
    return _png(is_drawn.astype(np.uint8), bytes(_WAVEFORM), transparency=0)


def _height(samples: Array, middle: float) -> npt.NDArray[np.float64]:
    """Return the rows of samples: that of 0 is in the middle."""
    shares = np.clip(samples.astype(np.float64) / middle, -1, 1)
    return np.asarray(np.rint((shares + 1) / 2 * (_WAVEFORM_ROWS - 1)))


def _png(numbers: Numbers, colours: bytes, **options: int) -> bytes:
    """Return a PNG with the numbers of colours, the first row at the bottom."""
    picture = Image.fromarray(np.ascontiguousarray(numbers[::-1]), "P")
    picture.putpalette(colours)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1, **options)
    return file.getvalue()
