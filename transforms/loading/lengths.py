"""Lengths of rows: rows of similar length next to one another, and random crops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from melmill.transforms.loading.randomness import Int64Array, random_numbers

#: Number of positions whose random numbers are made together.
_DRAWN = 256


def order_by_length(lengths: Int64Array, *key: int | str) -> Int64Array:
    """Return the order of the rows of a window by length, which begins at a random length.

    Rows of the same length keep their order, which is random already. A batch is short or long, and
    its neighbours are a little longer; the random beginning keeps batches of one length from
    coming at the same place of every window.

    Parameters
    ----------
    lengths
        The length of each row of the window, int64 [rows].
    key
        The key of the random beginning; none to begin with the shortest row.

    Examples
    --------
    >>> order_by_length(np.array([3, 1, 2])).tolist()
    [1, 2, 0]
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    if not key or not len(order):
        return order
    begin = int(random_numbers(1, *key, "lengths")[0] % np.uint64(len(order)))
    return np.roll(order, -begin)


def random_fractions(
    positions: Int64Array, seed: int | None, epoch: int
) -> npt.NDArray[np.float64]:
    """Return a random number from 0 to 1, without 1, for each position of an epoch, float64 [n].

    The number depends on the seed, the epoch and the position alone. Without a seed, it is 0.5.
    """
    if seed is None:
        return np.full(len(positions), 0.5)
    fractions = np.empty(len(positions))
    groups = positions // _DRAWN
    for group in np.unique(groups).tolist():
        own = groups == group
        drawn = random_numbers(_DRAWN, seed, epoch, group, "crops")[positions[own] % _DRAWN]
        fractions[own] = (drawn >> np.uint64(11)) * 2.0**-53
    return fractions
