"""What a recording's page says of it: its defects with their places, readings, and duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melmill.pipelines.explore import texts as texts_of
from melmill.pipelines.explore.texts import reading as reading_text
from melmill.pipelines.profiles import Finding, Profile, Rule, judge
from melmill.transforms.index.results import GroupTables
from melmill.transforms.measures.meters import Reading
from melmill.transforms.measures.registry import MEASURES, by_group

#: Most duplicates on a page.
_MOST_DUPLICATES = 24
#: Readings that are no numbers for people: they are only compared.
_HIDDEN = ("acoustic",)


@dataclass(frozen=True, slots=True)
class DefectPlace:
    """A place in a recording, to be marked and heard.

    Attributes
    ----------
    second, channel
        The place; the channel is ``None`` if it is not known.
    text
        What is there, with the value and its unit.
    is_broken
        Whether the recording breaks a limit of this kind.
    """

    second: float
    channel: int | None
    text: str
    is_broken: bool


@dataclass(frozen=True, slots=True)
class DefectKind:
    """Places of one kind: those of a group of measures.

    Attributes
    ----------
    name
        Group of measures.
    findings
        Limits that the recording breaks, as sentences.
    limits
        All limits of the profile for this kind, as text; ``""`` for none.
    places
        The places, in the order of time.
    """

    name: str
    findings: tuple[str, ...]
    limits: str
    places: tuple[DefectPlace, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another recording that sounds the same, or contains this one, or is contained in it.

    Attributes
    ----------
    recording_id, uri
        The other recording.
    kind
        How they are alike, in words.
    shift_seconds
        Second of the other recording at which this one starts.
    error
        Share of the fingerprints' bits that differ; ``None`` if they were not compared directly.
    form
        Length, sample rate, channels, bandwidth and size, as text.
    """

    recording_id: str
    uri: str
    kind: str
    shift_seconds: float
    error: float | None
    form: str


def find_defects(
    readings: Mapping[str, Reading], profile: Profile, start: float | None = 0.0
) -> list[DefectKind]:
    """Return the kinds of defects with a broken limit or a known place, the broken kinds first.

    Parameters
    ----------
    readings
        Readings by measure.
    profile
        Limits.
    start
        Second of the file at which the recording begins, which is added to all places; ``None`` if
        it is not known, so that no place is.
    """
    broken = judge(readings, profile)
    kinds = []
    for group, values in by_group(readings).items():
        findings = [f for f in broken if f.measure.split(".")[0] == group]
        places = [*_events(group, values, bool(findings)), *_places(findings, values)]
        places = [] if start is None else [replace(p, second=p.second + start) for p in places]
        if findings or places:
            rules = [rule for rule in profile.rules if rule.measure.split(".")[0] == group]
            kinds.append(
                DefectKind(
                    group,
                    tuple(_sentence(finding) for finding in findings),
                    "; ".join(map(_limit_text, rules)),
                    tuple(sorted(places, key=lambda place: place.second)),
                )
            )
    return sorted(kinds, key=lambda kind: not kind.findings)


def _events(group: str, values: Mapping[str, Reading], is_broken: bool) -> list[DefectPlace]:
    events: Any = values.get("events") or ()
    unit = MEASURES[f"{group}.events"].unit if events else ""
    return [
        DefectPlace(
            event["second"],
            event["channel"],
            f"{group} {reading_text(event['value'], unit)}",
            is_broken,
        )
        for event in events
    ]


def _places(findings: list[Finding], values: Mapping[str, Reading]) -> list[DefectPlace]:
    """Return the places of broken limits that are not among the events of their group."""
    if values.get("events"):
        return []
    return [
        DefectPlace(f.second, None, f"{f.measure} {reading_text(f.value, f.unit)}", is_broken=True)
        for f in findings
        if f.second is not None
    ]


def _sentence(finding: Finding) -> str:
    value, limit = (reading_text(v, finding.unit) for v in (finding.value, finding.limit))
    reason = f"{finding.reason}: " if finding.reason else ""
    if finding.limit is None:
        return f"{reason}{finding.measure} is not defined"
    return f"{reason}{finding.measure} is {value}, the limit is {limit}"


def _limit_text(rule: Rule) -> str:
    unit = MEASURES[rule.measure].unit
    low = f"at least {reading_text(rule.min, unit)}" if rule.min is not None else ""
    high = f"at most {reading_text(rule.max, unit)}" if rule.max is not None else ""
    must = reading_text(rule.is_) if rule.is_ is not None else ""
    return f"{rule.measure} {' and '.join(part for part in (low, high, must) if part)}"


def readings_by_group(
    readings: Mapping[str, Reading],
) -> dict[str, list[tuple[str, str, str]]]:
    """Return name, value with unit, and meaning of each reading that has a single value."""
    groups = {}
    for group, values in by_group(readings).items():
        measures = [(name, MEASURES[f"{group}.{name}"]) for name in values]
        rows = [
            (name, reading_text(values[name], measure.unit), measure.meaning)
            for name, measure in measures
            if measure.type != "events"
        ]
        if rows and group not in _HIDDEN and any(values[name] is not None for name, *_ in rows):
            groups[group] = rows
    return groups


_PARTLY = "contained"
_KINDS = {
    "exact": "all samples are equal",
    "same": "the same recording in another form",
    _PARTLY: "one contains the other",
}


def find_duplicates_of(recording_id: str, tables: GroupTables) -> list[Duplicate]:
    """Return the recordings that sound like one, with the time by which they are shifted.

    Not all pairs of a group are among the matches, so matches of matches are followed, too.
    Recordings that only contain each other are not followed.
    """
    shifts, frontier = {recording_id: 0.0}, [recording_id]
    rows: list[tuple[str, str, float, float | None]] = []
    while frontier and len(rows) < _MOST_DUPLICATES:
        following = []
        for match in _matches_of(frontier, tables.matches):
            known, other, sign = match["first"], match["second"], 1
            if known not in shifts:
                known, other, sign = other, known, -1
            is_own = known == recording_id
            if known not in shifts or other in shifts or (match["kind"] == _PARTLY and not is_own):
                continue
            shifts[other] = shifts[known] + sign * match["offset_seconds"]
            rows.append((other, match["kind"], shifts[other], match["error"] if is_own else None))
            if match["kind"] != _PARTLY:
                following.append(other)
        frontier = following
    described = _describe([row[0] for row in rows], tables.matched_recordings)
    return [
        Duplicate(
            other, described[other]["uri"], _KINDS[kind], shift, error, _form(described[other])
        )
        for other, kind, shift, error in rows
        if other in described
    ][:_MOST_DUPLICATES]


def _matches_of(recordings: list[str], matches: Any) -> list[dict[str, Any]]:
    wanted = pa.array(recordings, pa.string())
    first, second = (pc.is_in(matches[name], value_set=wanted) for name in ("first", "second"))
    rows: list[dict[str, Any]] = matches.filter(pc.or_(first, second)).to_pylist()
    return sorted(rows, key=lambda row: (row["kind"] == _PARTLY, row["first"], row["second"]))


def _describe(recordings: list[str], matched: Any) -> dict[str, dict[str, Any]]:
    wanted = pa.array(recordings, pa.string())
    rows = matched.filter(pc.is_in(matched["recording_id"], value_set=wanted)).to_pylist()
    return {row["recording_id"]: row for row in rows}


def _form(row: Mapping[str, Any]) -> str:
    texts = (
        texts_of.duration(row["seconds"]),
        f"{row['sample_rate_hz']} Hz",
        f"{row['channels']} channels",
        f"sound up to {reading_text(row['bandwidth_hz'], 'Hz')}" if row["bandwidth_hz"] else "",
        texts_of.size(row["size_bytes"]),
    )
    return ", ".join(text for text in texts if text)
