"""Whether equal fingerprints prove that a file did not change."""

from __future__ import annotations

from datetime import datetime

#: If a file changed less than this before its listing, a second change may leave the same
#: modification time: FAT stores times in steps of two seconds.
_COARSE_NS = 2_000_000_000
#: A modification time further in the future than this is not the error of a fast clock.
_AHEAD_NS = 86_400_000_000_000


def is_settled(fingerprint: str, listed_ms: int) -> bool:
    """Return whether an equal fingerprint proves that the file did not change since the listing.

    A modification time in whole seconds cannot distinguish two changes within one second. If
    such a time is only a little older than the listing, it proves nothing. Times with
    fractions, and fingerprints that are not times, do prove it. So does a time far in the
    future: somebody set it, and a later change would set another time.

    >>> is_settled("mtime:1700000000000000000:123", 1_700_000_001_000)
    False
    >>> is_settled("mtime:1700000000000000000:123", 1_700_000_009_000)
    True
    >>> is_settled("mtime:1700000000000000001:123", 1_700_000_001_000)
    True
    """
    modified_ns = _modified_ns(fingerprint)
    if modified_ns is None or modified_ns % 1_000_000_000:
        return True
    listed_ns = listed_ms * 1_000_000
    return not listed_ns - _COARSE_NS <= modified_ns <= listed_ns + _AHEAD_NS


def _modified_ns(fingerprint: str) -> int | None:
    """Return the modification time in a fingerprint; ``None`` if it contains no time."""
    kind, _, rest = fingerprint.partition(":")
    stamp = rest.rpartition(":")[0]
    if kind != "mtime":
        return None
    if stamp.isdecimal():
        return int(stamp)
    try:
        return round(datetime.fromisoformat(stamp).timestamp() * 1e6) * 1000
    except ValueError:
        return None
