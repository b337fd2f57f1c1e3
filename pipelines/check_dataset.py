"""Checks of a dataset: the readings in its index are compared with the limits of a profile."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from melmill.pipelines.check import CheckedRecording, measured
from melmill.pipelines.profiles import Finding, Profile, judge
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.index.tables import read_part
from melmill.transforms.measures.meters import Quality, Reading
from melmill.transforms.measures.registry import (
    MEASURES,
    meters_in,
    meters_of,
    quality_text,
    quality_with,
)
from melmill.transforms.store.folders import Store

_COLUMNS = [
    *("recording_id", "uri", "status", "container", "codec", "decoder", "sample_rate_hz"),
    *("channels", "frames", "measures"),
]
_SKIPPED = "it has no chunk, so it was not decoded; give its file to melmill check"
_NOT_MEASURED = (
    "the dataset has no readings of it; give its file to melmill check, or replace the dataset "
    "with melmill extract --overwrite"
)


def check_dataset(
    store: Store, profile: Profile, quality: Quality = "off"
) -> Iterator[CheckedRecording]:
    """Check all recordings of a dataset's current snapshot; nothing is decoded.

    Parameters
    ----------
    store
        Dataset.
    profile
        Limits.
    quality
        Measures to show in addition to those of the profile; ``off`` for none.

    Yields
    ------
    CheckedRecording
        Results in the order of the index. One part of the index is in memory at a time.

    Raises
    ------
    DatasetError
        There is no dataset, or its recipe does not measure what the profile limits.
    """
    opened = OpenSnapshot.current(store)
    _require_measured(opened, profile)
    yield from check_snapshot(opened, profile, measured(profile, quality))


def check_snapshot(
    opened: OpenSnapshot, profile: Profile, shown: tuple[str, ...] = ()
) -> Iterator[CheckedRecording]:
    """Check all recordings of an opened snapshot.

    Parameters
    ----------
    opened
        Snapshot, whose recipe measures what the profile limits.
    profile
        Limits.
    shown
        Measures whose readings a result has.
    """
    store, index = opened.store, opened.snapshot.index
    for part in range(opened.parts):
        failures = {
            row["recording_id"]: row
            for row in read_part(store, index, "failures", part).to_pylist()
        }
        table = read_part(store, index, "recordings", part, _COLUMNS)
        for row in table.to_pylist(maps_as_pydicts="strict"):
            yield _judge(row, failures.get(row["recording_id"]), profile, shown)


def _require_measured(opened: OpenSnapshot, profile: Profile) -> None:
    quality = opened.recipe.quality
    meters = {*meters_in(quality)}
    missing = [name for name in profile.measures if not {*meters_of([name])} <= meters]
    if missing:
        needed = quality_with(quality, meters_of(missing))
        raise DatasetError(
            f"{opened.store.root}: its recipe has quality: {quality_text(quality)}, which does not "
            f"measure {', '.join(missing)}; check the recordings themselves (melmill check "
            f"{opened.snapshot.catalogue}), or run melmill refresh with --set "
            f"{shlex.quote(f'quality={quality_text(needed)}')}"
        )


def _judge(
    row: Mapping[str, Any],
    failure: Mapping[str, Any] | None,
    profile: Profile,
    shown: tuple[str, ...],
) -> CheckedRecording:
    uri, findings = row["uri"], list[Finding]()
    if failure is not None:
        findings.append(Finding(failure["message"], cause=failure["cause"]))
    audio = audio_of(row) if row["frames"] is not None else None
    readings: dict[str, Reading] = {}
    if row["measures"] is not None and all(row["measures"][g] for g in _groups(profile)):
        readings = readings_of_row(row["measures"])
        findings += judge(readings, profile)
    elif failure is None:
        reason = _SKIPPED if row["status"] == "skipped" else _NOT_MEASURED
        findings.append(Finding(reason, cause="not_measured"))
    values = {name: readings[name] for name in shown} if readings else {}
    return CheckedRecording(
        uri, uri, audio, tuple(findings), values, recording_id=row["recording_id"]
    )


def _groups(profile: Profile) -> set[str]:
    """Return the groups of the measures that a profile limits."""
    return {name.split(".")[0] for name in profile.measures}


def readings_of_row(measures: Mapping[str, Any]) -> dict[str, Reading]:
    """Return the readings by the measure's name; ``None`` for those that are not in the table."""
    parts = {name: name.split(".") for name in MEASURES}
    return {name: (measures.get(group) or {}).get(own) for name, (group, own) in parts.items()}


def audio_of(row: Mapping[str, Any]) -> AudioInfo:
    """Return the header of a recording from its row of the index."""
    names = "container", "codec", "decoder", "sample_rate_hz", "channels", "frames"
    return AudioInfo(*(row[name] for name in names))
