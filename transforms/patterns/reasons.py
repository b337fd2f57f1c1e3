"""Reasons: the measures that are unusual in a recording or in a group of recordings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melmill.transforms.measures.registry import MEASURES
from melmill.transforms.patterns.space import robust_scale

#: Smallest deviation that is a reason, in robust standard deviations, and that is typical of a
#: group, which may be most of the recordings.
_DEVIATION, _TYPICAL = 3.0, 1.0
#: Largest number of reasons. Each is of another group of measures: those of a group say much the
#: same.
_REASONS = 3
#: Smallest scale of a measure by its unit, so that differences that nobody hears are no reasons.
_LEAST_SCALES = {"dBFS": 1.0, "dBTP": 1.0, "LUFS": 1.0, "dB": 0.5, "LU": 0.5, "Hz": 20.0, "s": 0.1}
_LEAST_SCALE = 0.0003
#: Fewest recordings for which a usual value is known.
_FEWEST = 5

#: Measures that are compared: numbers that do not say where something is.
COMPARED = tuple(
    name
    for name, measure in MEASURES.items()
    if measure.type in ("float", "int") and not name.endswith("_second")
)


@dataclass(frozen=True, slots=True)
class Reason:
    """A measure that is far from its median.

    Attributes
    ----------
    measure
        Name of the measure.
    value, median
        Reading of the recording, or median of the group, and median of all recordings.
    deviation
        Difference in robust standard deviations (1.4826 times the median absolute deviation).
    """

    measure: str
    value: float
    median: float
    deviation: float

    @property
    def text(self) -> str:
        """Reason in words.

        >>> Reason("origin.bandwidth", 3962.1, 16021.1, -9.0).text
        'origin.bandwidth 3,962 Hz is low (median 16,021)'
        """
        unit = MEASURES[self.measure].unit
        size = "high" if self.deviation > 0 else "low"
        value = f"{number_text(self.value)}{unit and f' {unit}'}"
        return f"{self.measure} {value} is {size} (median {number_text(self.median)})"


def number_text(value: float) -> str:
    """Return a number with three digits, or as a whole number.

    >>> number_text(0.0123456), number_text(-23.456), number_text(16021.2)
    ('0.0123', '-23.5', '16,021')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def flatten(measures: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the readings that are compared, by the measure's name, without those not defined."""
    groups = ((name, *name.split(".")) for name in COMPARED)
    values = {name: ((measures or {}).get(group) or {}).get(own) for name, group, own in groups}
    return {name: float(value) for name, value in values.items() if value is not None}


class UsualReadings:
    """The median and the scale of each measure over recordings.

    Parameters
    ----------
    readings
        Readings of each recording; see :func:`flatten`.
    """

    def __init__(self, readings: Sequence[Mapping[str, float]]) -> None:
        self._usual: dict[str, tuple[float, float]] = {}
        for name in COMPARED:
            values = np.array([known[name] for known in readings if name in known])
            if len(values) >= _FEWEST:
                median, scale = robust_scale(values[:, np.newaxis])
                least = _LEAST_SCALES.get(MEASURES[name].unit, _LEAST_SCALE)
                self._usual[name] = float(median[0]), max(least, float(scale[0]))

    def reasons(
        self, readings: Mapping[str, float], least: float = _DEVIATION
    ) -> tuple[Reason, ...]:
        """Return why readings are unusual: at most three measures, the most unusual first."""
        by_group: dict[str, Reason] = {}
        for reason in sorted(self._deviations(readings), key=_order):
            if abs(reason.deviation) > least:
                by_group.setdefault(reason.measure.split(".")[0], reason)
        return tuple(by_group.values())[:_REASONS]

    def _deviations(self, readings: Mapping[str, float]) -> Iterator[Reason]:
        for name in readings.keys() & self._usual.keys():
            median, scale = self._usual[name]
            yield Reason(name, readings[name], median, (readings[name] - median) / scale)

    def typical(self, group: Sequence[Mapping[str, float]]) -> tuple[Reason, ...]:
        """Return in which measures the median of a group of recordings is unusual."""
        medians = {
            name: float(np.median([known[name] for known in group if name in known]))
            for name in self._usual
            if any(name in known for known in group)
        }
        return self.reasons(medians, _TYPICAL)


def _order(reason: Reason) -> tuple[float, str]:
    return -abs(reason.deviation), reason.measure
