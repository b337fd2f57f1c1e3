"""Meters: what all of them share.

A meter adds up what it reads from blocks. Meters of neighbouring parts of a recording are merged.
The result is the same, bit for bit, however the recording was divided: a meter keeps only counts,
extremes, and sums that are exact (:func:`exact`), and each block gives them by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from melmill.transforms.measures.blocks import Block

#: Value of a measure. ``None`` where it is not defined: silence has no level in decibels.
Reading: TypeAlias = float | int | bool | str | list[dict[str, float]] | None

#: Bits after the binary point in exact sums.
_EXACT_BITS = 96
#: Number of events that a meter keeps.
_WORST = 8

#: Extent of the measures: none, those that cost little, or all.
Quality = Literal["off", "basic", "full"]

_Self = TypeVar("_Self")


@dataclass(frozen=True, slots=True)
class Measure:
    """The description of a measure.

    Attributes
    ----------
    name
        Group and name: ``clipping.share``.
    type
        ``float``, ``int``, ``bool``, ``text``, or ``events``: a list of places, each with its
        ``second``, its ``channel`` (0 is the first) and a ``value``.
    unit
        Unit of the value; ``""`` for a ratio, a number or a truth value. For events, the unit of
        each ``value``.
    meaning
        Definition, in a sentence.
    """

    name: str
    type: str
    unit: str
    meaning: str


class Meter(Protocol):
    """A meter: it adds up what it reads from blocks.

    A meter is made from the :class:`~melmill.transforms.measures.blocks.Shape` of the recording.
    Its dataclass fields are plain values (numbers, lists and dictionaries of them), so that it can
    be stored as JSON.
    """

    def add(self, block: Block) -> None:
        """Add the next block."""

    def merge(self: _Self, later: _Self) -> None:
        """Add what another meter read from the blocks after these."""

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's whole name, such as ``clipping.share``."""


def exact(value: float) -> int:
    """Return a number in fixed point, so that sums do not depend on the order.

    >>> exact(0.1) + exact(0.2) + exact(0.3) == exact(0.3) + exact(0.2) + exact(0.1)
    True
    """
    return int(math.ldexp(value, _EXACT_BITS))


def inexact(total: int) -> float:
    """Return the number that :func:`exact` converted.

    >>> inexact(exact(0.5) + exact(0.25))
    0.75
    """
    return math.ldexp(total, -_EXACT_BITS)


def decibels(ratio: float, factor: float = 20.0) -> float | None:
    """Return a ratio of amplitudes in dB (of powers with the factor 10); ``None`` for zero.

    >>> decibels(0.1), decibels(0.1, 10), decibels(0.0)
    (-20.0, -10.0, None)
    """
    return factor * math.log10(ratio) if ratio > 0 else None


@dataclass(slots=True)
class Worst:
    """The worst events of a recording, with their places.

    Attributes
    ----------
    events
        Negative severity, frame and channel of each event: the worst event first, and equal events
        in the order of time.
    """

    events: list[tuple[float, int, int]] = field(default_factory=list)

    def add(self, events: Iterable[tuple[float, int, int]]) -> None:
        """Add events: severity, frame and channel of each."""
        added = [
            (-float(severity), int(frame), int(channel)) for severity, frame, channel in events
        ]
        self.events = sorted([*self.events, *added])[:_WORST]

    def merge(self, later: Worst) -> None:
        """Add the events of another part of the recording."""
        self.events = sorted([*self.events, *later.events])[:_WORST]

    def readings(self, rate_hz: int, unit: float = 1.0) -> list[dict[str, Any]]:
        """Return the events in the order of time, with the severity times a unit as ``value``."""
        return [
            {"second": frame / rate_hz, "channel": channel, "value": -severity * unit}
            for severity, frame, channel in sorted(self.events, key=lambda event: event[1:])
        ]
