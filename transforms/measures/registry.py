"""The registry of all meters and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from melmill.transforms.measures import (
    bits,
    channels,
    clicks,
    clipping,
    gaps,
    hum,
    level,
    loudness,
    spectrum,
    true_peak,
)
from melmill.transforms.measures.meters import Measure, Meter, Reading

#: Extent of the measures: none, those that cost little, or all.
Quality = Literal["off", "basic", "full"]

#: Modules of the meters.
_MODULES = (
    *(level, clipping, gaps, channels, spectrum, bits),
    *(loudness, true_peak, hum, clicks),
)

#: Meters by name, in the order of the readings.
METERS: dict[str, type[Any]] = {
    "level": level.LevelMeter,
    "clipping": clipping.ClippingMeter,
    "gaps": gaps.GapsMeter,
    "channels": channels.ChannelsMeter,
    "spectrum": spectrum.SpectrumMeter,
    "bits": bits.BitsMeter,
    "loudness": loudness.LoudnessMeter,
    "true_peak": true_peak.TruePeakMeter,
    "hum": hum.HumMeter,
    "clicks": clicks.ClicksMeter,
}

#: Meters of each quality; ``full`` has all.
QUALITIES: dict[Quality, tuple[str, ...]] = {
    "off": (),
    "basic": ("level", "clipping", "gaps", "channels", "spectrum", "bits"),
    "full": tuple(METERS),
}

_MEASURES = dict(zip(METERS, (module.MEASURES for module in _MODULES), strict=True))

#: All measures by name.
MEASURES: dict[str, Measure] = {
    measure.name: measure for measures in _MEASURES.values() for measure in measures
}


def meters_of(measures: Sequence[str]) -> tuple[str, ...]:
    """Return the meters that read some measures.

    >>> meters_of(["loudness.true_peak", "clipping.share", "clipping.runs"])
    ('clipping', 'true_peak')
    """
    wanted = set(measures)
    return tuple(
        name
        for name, measures_read in _MEASURES.items()
        if not wanted.isdisjoint(measure.name for measure in measures_read)
    )


def readings_of(meters: Mapping[str, Meter]) -> dict[str, Reading]:
    """Return the readings of meters by the measure's name."""
    return dict(chain.from_iterable(meter.readings().items() for meter in meters.values()))
