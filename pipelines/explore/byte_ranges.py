"""Ranges of bytes in HTTP requests (RFC 9110, section 14)."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)
#: Most digits of a number in a range: longer numbers lie behind every file.
_DIGITS = 18


class NotSatisfiableError(Exception):
    """The range has no byte of the file: the answer is 416."""


def parse_range(header: str | None, size: int, most: int) -> tuple[int, int] | None:
    """Return the range of bytes that a request wants.

    Parameters
    ----------
    header
        Value of the header ``Range``; ``None`` if there is none.
    size
        Size of the file.
    most
        Most bytes of an answer to a range without an end. A browser that plays a file asks for all
        the rest, and then for more when it has played what it got.

    Returns
    -------
    tuple of int, or None
        First byte and end; ``None`` for the whole file, also if the header has several ranges or
        is no range of bytes: a server may ignore those.

    Raises
    ------
    NotSatisfiableError
        The range begins behind the end of the file, or is empty.

    Examples
    --------
    >>> [parse_range(f"bytes={text}", 1000, 300) for text in ("0-", "900-", "10-20", "-5")]
    [(0, 300), (900, 1000), (10, 21), (995, 1000)]
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    low, high = (text[:_DIGITS] and int(text[:_DIGITS]) for text in match.groups())
    if low == "":
        low, high = max(0, size - int(high)), size - 1
    elif high != "" and int(high) < int(low):
        return None  # not valid, so it is ignored
    first = int(low)
    stop = min(size, first + most if high == "" else int(high) + 1)
    if first >= stop:
        raise NotSatisfiableError
    return first, stop
