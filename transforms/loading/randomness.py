"""Random numbers and orders that depend on a key alone, on every machine and in every release.

NumPy guarantees the stream of raw integers of a bit generator. It does not guarantee what
``Generator.permutation`` makes of them, and a saved state must mean the same order years later.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]


def random_numbers(count: int, *key: int | str) -> npt.NDArray[np.uint64]:
    """Return random integers, uint64 [count]; the same key always gives the same integers."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    generator = np.random.Philox(key=int.from_bytes(digest, "little"))
    numbers: npt.NDArray[np.uint64] = generator.random_raw(count)
    return numbers


def random_order(count: int, *key: int | str) -> Int64Array:
    """Return the numbers from 0 to ``count`` in a random order, int64 [count].

    >>> random_order(5, 0, "example").tolist() == random_order(5, 0, "example").tolist()
    True
    """
    return np.argsort(random_numbers(count, *key), kind="stable").astype(np.int64)
