"""Segments of a table's rows, from a start and an end or a duration, and their faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from melmill.transforms.catalogue.meanings import Meanings
from melmill.transforms.core.errors import Cause

#: Start and end in seconds, or what is wrong with them.
Segment = tuple[Any, Any]

#: Upper limit of seconds: no recording lasts 30 years, and larger sample numbers may overflow.
_END_OF_SECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Misfit:
    """A cell that does not fit its column; the message gives the reason."""

    message: str


class BadRowError(Exception):
    """The error for a row that names no recording."""

    def __init__(self, cause: Cause, message: str, uri: str = "") -> None:
        super().__init__(cause, message, uri)
        self.cause, self.message, self.uri = cause, message, uri


def segment_of(meanings: Meanings, start: Any, end: Any, duration: Any) -> Segment:
    """Return the start and the end of a segment, from its end or from its duration."""
    if not meanings.duration or isinstance(start, Misfit) or isinstance(duration, Misfit):
        return start, duration if isinstance(duration, Misfit) else end
    if meanings.whole_without_start and start is None:
        return None, None
    # Sums of decimal numbers may have 16 digits more.
    return start, None if duration is None else round((start or 0) + duration, 9)


def check_segment(meanings: Meanings, uri: str, start: float | None, end: float | None) -> None:
    """Raise ``BadRowError`` if no recording has such a segment; the message names the column."""
    if start is not None and not 0 <= start < math.inf:
        message = f", column {meanings.start!r}: {start} is not a position in seconds"
        raise BadRowError(Cause.BAD_SEGMENT, message, uri)
    ending = meanings.duration or meanings.end
    if end is not None and not (start or 0) < end < math.inf:
        what = f"the end, {end}," if meanings.duration else f"{end}"
        message = f", column {ending!r}: {what} does not come after the start, {start or 0}"
        raise BadRowError(Cause.BAD_SEGMENT, message, uri)
    for name, value in ((meanings.start, start), (ending, end)):
        if value is not None and value >= _END_OF_SECONDS:
            message = f", column {name!r}: {value:g} is not below {_END_OF_SECONDS:,} seconds"
            raise BadRowError(Cause.BAD_SEGMENT, message, uri)
