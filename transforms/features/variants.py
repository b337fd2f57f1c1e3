"""Applies the words of a variant to chunks; see :mod:`~melmill.transforms.features.variants_spec`.

The words see the real samples of a chunk, and those around it, at the sample rate of a feature.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from melmill.transforms.features.chunks import Place
from melmill.transforms.features.variants_spec import Draws, Gain, VariantSpec

Samples = npt.NDArray[np.float32]

#: Function that returns the changed samples of a chunk, float32 [samples, channels].
Change = Callable[[Place, Samples], Samples]


def gain_factor(gain: Gain, draws: Draws, word: int, chunk: int) -> float:
    """Return the factor of a chunk's samples."""
    return float(10 ** (draws.uniform(word, chunk, "gain", gain.low_db, gain.high_db) / 20))


def change_of(variant: VariantSpec, draws: Draws) -> Change | None:
    """Return the function that applies the words of a variant; ``None`` if none changes chunks."""
    if not variant.changes_chunks:
        return None

    def change(place: Place, window: Samples) -> Samples:
        for number, word in enumerate(variant.words):
            if isinstance(word, Gain):
                window = window * np.float32(gain_factor(word, draws, number, place.index))
        return window

    return change
