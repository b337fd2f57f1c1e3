"""The registry of all meters and measures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from melmill.transforms.measures import (
    acoustic_fingerprint,
    activity,
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
from melmill.transforms.measures.meters import Measure, Meter, Quality, Reading

#: Meters with their measures, in the order of the readings.
_REGISTRY: dict[str, tuple[type[Any], tuple[Measure, ...]]] = {
    "level": (level.LevelMeter, level.MEASURES),
    "clipping": (clipping.ClippingMeter, clipping.MEASURES),
    "gaps": (gaps.GapsMeter, gaps.MEASURES),
    "channels": (channels.ChannelsMeter, channels.MEASURES),
    "spectrum": (spectrum.SpectrumMeter, spectrum.MEASURES),
    "bits": (bits.BitsMeter, bits.MEASURES),
    "loudness": (loudness.LoudnessMeter, loudness.MEASURES),
    "true_peak": (true_peak.TruePeakMeter, true_peak.MEASURES),
    "hum": (hum.HumMeter, hum.MEASURES),
    "clicks": (clicks.ClicksMeter, clicks.MEASURES),
    "activity": (activity.ActivityMeter, activity.MEASURES),
    "acoustic": (acoustic_fingerprint.AcousticMeter, acoustic_fingerprint.MEASURES),
}

#: Meters by name.
METERS: dict[str, type[Any]] = {name: meter for name, (meter, _) in _REGISTRY.items()}

#: Meters of each quality; ``full`` has all but the fingerprint, which is not about quality.
QUALITIES: dict[Quality, tuple[str, ...]] = {
    "off": (),
    "basic": ("level", "clipping", "gaps", "channels", "spectrum", "bits"),
    "full": tuple(name for name in METERS if name != "acoustic"),
}

#: All measures by name.
MEASURES: dict[str, Measure] = {
    measure.name: measure for _, measures in _REGISTRY.values() for measure in measures
}

#: Meters that do not measure chunks: hum is steady through blocks of two seconds, and the
#: fingerprint is text.
_NOT_FOR_CHUNKS = ("hum", "acoustic")


def _is_for_chunks(measure: Measure) -> bool:
    """Return whether a measure is a number that means something for a chunk.

    Places stay with the recording, and a chunk is always cut off at both ends.
    """
    is_number = measure.type in ("float", "int", "bool")
    return (
        is_number and not measure.name.endswith("_second") and not measure.name.startswith("cut.")
    )


#: Measures of chunks, by meter.
CHUNK_MEASURES: dict[str, tuple[str, ...]] = {
    name: tuple(measure.name for measure in measures if _is_for_chunks(measure))
    for name, (_, measures) in _REGISTRY.items()
    if name not in _NOT_FOR_CHUNKS
}


def chunk_measures(meters: Sequence[str]) -> tuple[str, ...]:
    """Return the measures of chunks that some meters read, in the order of all measures.

    >>> chunk_measures(["true_peak", "gaps"])
    ('gaps.count', 'gaps.seconds', 'gaps.longest', 'loudness.true_peak')
    """
    return tuple(
        name for meter, names in CHUNK_MEASURES.items() if meter in meters for name in names
    )


def meters_in(quality: str | Sequence[str]) -> tuple[str, ...]:
    """Return the meters of a recipe's quality: of one tier, or of tiers and single meters.

    >>> meters_in("off"), meters_in(["clipping", "acoustic"])
    ((), ('clipping', 'acoustic'))
    """
    names = [quality] if isinstance(quality, str) else quality
    tiers: Mapping[Any, tuple[str, ...]] = QUALITIES
    wanted = set(chain.from_iterable(tiers.get(name, (name,)) for name in names))
    return tuple(name for name in METERS if name in wanted)


def quality_with(quality: str | Sequence[str], meters: Sequence[str]) -> str | tuple[str, ...]:
    """Return a recipe's quality with some meters more: of the smallest tier that has them.

    >>> quality_with("basic", ("hum",)), quality_with("basic", ("acoustic",))
    ('full', ('basic', 'acoustic'))
    >>> quality_with("off", ("acoustic",)), quality_with(["basic", "acoustic"], ("hum",))
    (('acoustic',), ('full', 'acoustic'))
    """
    wanted = {*meters_in(quality), *meters}
    tiers = [name for name, has in QUALITIES.items() if wanted & {*QUALITIES["full"]} <= {*has}]
    singles = [name for name in METERS if name in wanted and name not in QUALITIES["full"]]
    names = [name for name in tiers[:1] if name != "off" or not singles]
    return (*names, *singles) if singles else names[0]


def meters_of(measures: Sequence[str]) -> tuple[str, ...]:
    """Return the meters that read some measures.

    >>> meters_of(["loudness.true_peak", "clipping.share", "clipping.runs"])
    ('clipping', 'true_peak')
    """
    wanted = set(measures)
    return tuple(
        name
        for name, (_, measures_read) in _REGISTRY.items()
        if not wanted.isdisjoint(measure.name for measure in measures_read)
    )


def quality_text(quality: str | Sequence[str]) -> str:
    """Return a recipe's quality as YAML.

    >>> quality_text("full"), quality_text(("basic", "acoustic"))
    ('full', '[basic, acoustic]')
    """
    return quality if isinstance(quality, str) else f"[{', '.join(quality)}]"


def readings_of(meters: Mapping[str, Meter]) -> dict[str, Reading]:
    """Return the readings of meters by the measure's name."""
    return dict(chain.from_iterable(meter.readings().items() for meter in meters.values()))


def by_group(readings: Mapping[str, Reading]) -> dict[str, dict[str, Reading]]:
    """Return readings by group and name.

    >>> by_group({"clipping.share": 0.5, "clipping.runs": 3, "level.peak": None})
    {'clipping': {'share': 0.5, 'runs': 3}, 'level': {'peak': None}}
    """
    groups: defaultdict[str, dict[str, Reading]] = defaultdict(dict)
    for measure, value in readings.items():
        group, name = measure.split(".")
        groups[group][name] = value
    return dict(groups)
