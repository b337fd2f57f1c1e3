"""Waveforms and spectrograms as PNG files with few colours, which stay small.

A picture is an array of colour numbers: its own few colours, and then a perceptually uniform map
from dark to bright. The background is transparent, so that a picture fits light and dark pages.
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from melmill.pipelines.sound.colours import colour_map

Floats = npt.NDArray[np.float32]
#: A picture: colour numbers, uint8 [rows, columns]; row 0 is at the top.
Pixels = npt.NDArray[np.uint8]

#: Colour numbers. Waveform and mark have enough contrast on a white and on a dark page.
BACKGROUND, WAVE, MARK, LINE, _FIRST_LEVEL = range(5)
_OWN_COLOURS = ((0, 0, 0), (74, 125, 196), (230, 110, 20), (128, 128, 128))
#: Number of different levels of a map: fewer would show as steps, more make larger files.
LEVELS = 48


def draw_levels(values: Floats, low: float, high: float) -> Pixels:
    """Return a map of values, with the first row at the bottom.

    Parameters
    ----------
    values : float32 [rows, columns]
        Values; NaN is drawn as the background.
    low, high
        Values of the darkest and of the brightest colour. Values outside are drawn as these.
    """
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    numbers = _FIRST_LEVEL + np.rint(np.nan_to_num(share) * (LEVELS - 1))
    return np.where(np.isnan(values), BACKGROUND, numbers).astype(np.uint8)[::-1]


def draw_waveform(minima: Floats, maxima: Floats, height: int, full: float = 1.0) -> Pixels:
    """Return a waveform: in each column a line from the smallest to the largest sample.

    Parameters
    ----------
    minima, maxima : float32 [columns]
        Smallest and largest sample of each column.
    height
        Number of rows.
    full
        Sample at the upper edge. Larger samples end at the edge.
    """
    top, bottom = (
        np.rint((1 - np.clip(values / full, -1, 1)) / 2 * (height - 1))
        for values in (maxima, minima)
    )
    rows = np.arange(height)[:, None]
    pixels = np.full((height, len(minima)), BACKGROUND, np.uint8)
    pixels[(height - 1) // 2] = LINE
    pixels[(top <= rows) & (rows <= bottom)] = WAVE
    return pixels


def wave_scale(peak: float) -> float:
    """Return the sample at the upper edge of a waveform: 1, 2 or 5 times a power of ten.

    >>> wave_scale(0.7), wave_scale(1.5), wave_scale(0.04), wave_scale(0.0)
    (1.0, 2.0, 0.05, 1.0)
    """
    if peak <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    factors = (factor for factor in (1, 2, 5, 10) if factor * power >= peak)
    return float(f"{next(factors, 10) * power:.1g}")


def png_bytes(pixels: Pixels) -> bytes:
    """Return a picture as a PNG file with a palette."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    image.putpalette(
        [*np.array(_OWN_COLOURS).ravel().tolist(), *colour_map(LEVELS).ravel().tolist()]
    )
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=BACKGROUND, optimize=True)
    return buffer.getvalue()
