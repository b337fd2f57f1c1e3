"""The colour map of all pictures: Viridis, whose steps look equally large, also in grey."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from plotly.colors import hex_to_rgb, sequential

#: Colours of the map that Plotly has; those between them are interpolated in RGB.
COLOUR_MAP: tuple[str, ...] = tuple(sequential.Viridis)


@cache
def colour_map(count: int) -> npt.NDArray[np.uint8]:
    """Return colours from dark to bright: uint8 [count, 3].

    >>> colour_map(3).tolist()
    [[68, 1, 84], [34, 144, 140], [253, 231, 37]]
    """
    anchors = np.array([hex_to_rgb(colour) for colour in COLOUR_MAP], np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, i]) for i in range(3)]
    return np.rint(np.column_stack(channels)).astype(np.uint8)
