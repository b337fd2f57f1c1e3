"""Fingerprints of random words, and their damaged copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
_BITS = np.arange(32, dtype=np.uint32)


def random_print(words: int, seed: int) -> Words:
    """Return informative words that are unrelated to each other."""
    return np.random.default_rng(seed).integers(1, 1 << 32, words, np.uint32)


def flipped(words: Words, share: float, seed: int = 0) -> Words:
    """Return words with a share of their bits flipped; masked words stay masked."""
    flips = np.random.default_rng(seed).random((len(words), 32)) < share
    damaged = words ^ (flips.astype(np.uint32) << _BITS).sum(axis=1, dtype=np.uint32)
    return np.where(words == 0, words, damaged)


def masked(words: Words, share: float, seed: int = 0) -> Words:
    """Return words of which a share is masked."""
    is_masked = np.random.default_rng(seed).random(len(words)) < share
    return np.where(is_masked, np.uint32(0), words)
