"""Histograms of whole numbers, from which quantiles are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def quantile(histogram: Mapping[int, int], share: float) -> int | None:
    """Return the least number that a share of the counted numbers does not exceed.

    ``None`` if nothing was counted.

    >>> quantile({-3: 1, 5: 8, 9: 1}, 0.5), quantile({-3: 1, 5: 9}, 0.05), quantile({}, 0.5)
    (5, -3, None)
    """
    wanted, counted = share * sum(histogram.values()), 0
    for number in sorted(histogram):
        counted += histogram[number]
        if counted >= wanted:
            return number
    return None


def count(histogram: dict[int, int], numbers: Iterable[int]) -> None:
    """Count numbers in a histogram.

    >>> histogram = {5: 1}
    >>> count(histogram, [5, 7])
    >>> histogram
    {5: 2, 7: 1}
    """
    for number in numbers:
        histogram[number] = histogram.get(number, 0) + 1


def merge(histogram: dict[int, int], later: Mapping[int, int]) -> None:
    """Add the counts of another histogram."""
    for number, counted in later.items():
        histogram[number] = histogram.get(number, 0) + counted
