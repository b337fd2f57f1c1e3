"""Groups: recordings that are connected by matches, directly or through other recordings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K", int, str)


def group(pairs: Iterable[tuple[K, K]]) -> dict[K, K]:
    """Return the smallest member of the group of each member.

    Parameters
    ----------
    pairs
        Pairs of members of the same group, in any order.

    Returns
    -------
    dict
        Smallest member of the group by member. It has only the members of pairs.

    Examples
    --------
    >>> group([("c", "b"), ("x", "y"), ("b", "a")])
    {'c': 'a', 'b': 'a', 'x': 'x', 'y': 'x', 'a': 'a'}
    """
    #: A smaller member of the group by member; the smallest member has itself.
    smaller: dict[K, K] = {}
    for pair in pairs:
        low, high = sorted(_smallest(smaller, member) for member in pair)
        smaller[high] = low
    return {member: _smallest(smaller, member) for member in smaller}


def _smallest(smaller: dict[K, K], member: K) -> K:
    """Return the smallest member of a group, and shorten the path to it."""
    while (parent := smaller.setdefault(member, member)) != member:
        smaller[member] = smaller[parent]
        member = smaller[member]
    return member
