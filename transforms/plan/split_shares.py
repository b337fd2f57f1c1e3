"""Whether the splits of a dataset have the shares of the recordings that the recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping

from melmill.transforms.core.naming import number_of

#: Part of a share, or of what remains beside it, by which a split may miss the share.
_FAR = 0.5


def share_warnings(asked: Mapping[str, float], recordings: Mapping[str, int]) -> list[str]:
    """Return a sentence for each split that is empty, or far from the share that it was to get.

    A share is far off if it misses by more than half of the smaller of the share and of what
    remains beside it: 10 % is missed by 4 % and by 16 %, and 80 % by 69 % and by 91 %.

    Parameters
    ----------
    asked
        Share of each split; empty if the catalogue divides the recordings.
    recordings
        Number of recordings with rows, by split.

    Examples
    --------
    >>> share_warnings({"train": 0.8, "test": 0.2}, {"train": 6})
    ['split test is empty: split.fractions asks for 20.0% of 6 recordings', \
'split train has 100.0% of 6 recordings: split.fractions asks for 80.0%']
    >>> share_warnings({"train": 0.8, "test": 0.2}, {"train": 7, "test": 3})
    []
    """
    total = sum(recordings.values())
    if not total:
        return []
    number, whole = number_of(total, "recording"), sum(asked.values())
    empty, far = [], []
    for split, fraction in asked.items():
        share, own = fraction / whole, recordings.get(split, 0)
        if not own:
            wanted = f"split.fractions asks for {share:.1%} of {number}"
            empty.append(f"split {split} is empty: {wanted}")
        elif abs(own / total - share) > _FAR * min(share, 1 - share) + 1e-9:
            wanted = f"split.fractions asks for {share:.1%}"
            far.append(f"split {split} has {own / total:.1%} of {number}: {wanted}")
    return empty + far


def too_few(asked: Mapping[str, float], recordings: Mapping[str, int], at_least: int) -> str:
    """Return why the splits are too small for ``split.min_recordings``; ``""`` if they are not.

    Every split that was asked for must have so many recordings, and every other split that has any.

    >>> too_few({"train": 0.5, "test": 0.5}, {"train": 6}, 2)
    'split.min_recordings is 2, and the split test has 0 recordings with rows'
    >>> too_few({"train": 0.5, "test": 0.5}, {"train": 6}, 0)
    ''
    """
    numbers = dict.fromkeys(asked, 0) | dict(recordings)
    small = [
        f"the split {split} has {number_of(number, 'recording')} with rows"
        for split, number in numbers.items()
        if number < at_least
    ]
    return f"split.min_recordings is {at_least:,}, and {' and '.join(small)}" if small else ""
