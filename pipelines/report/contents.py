"""What a report says: numbers, the worst recordings of each defect, failures and duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melmill.pipelines.check_dataset import audio_of, readings_of_row
from melmill.pipelines.explore.filters import ALWAYS, Filter
from melmill.pipelines.explore.overview_pages import Chart, charts
from melmill.pipelines.explore.recording_table import ANY, RecordingTable
from melmill.pipelines.profiles import Finding, Rule, judge
from melmill.pipelines.report.snapshot import ReportedSnapshot, duplicates_of
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.index.tables import read_index

if TYPE_CHECKING:
    from melmill.transforms.duplicates.grouping import MatchedRecording


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recording with a defect.

    Attributes
    ----------
    recording_id, uri, fingerprint, size_bytes, seconds, split, shards
        Columns of the index.
    audio
        Header.
    finding
        The limit that it breaks.
    channel
        Channel of the defect; ``None`` if it is not known.
    """

    recording_id: str
    uri: str
    fingerprint: str
    size_bytes: int
    seconds: float
    split: str | None
    shards: tuple[str, ...]
    audio: AudioInfo
    finding: Finding
    channel: int | None = None

    @property
    def second(self) -> float | None:
        """Place to show, counted from the start of the recording or segment."""
        places = {"silence.head": 0.0, "silence.tail": self.seconds}
        return places.get(self.finding.measure, self.finding.second)

    @property
    def is_segment(self) -> bool:
        """Whether the recording is a segment of a longer file."""
        return self.seconds < self.audio.frames / self.audio.sample_rate_hz - 0.001


@dataclass(frozen=True, slots=True)
class Defect:
    """A limit that recordings break.

    Attributes
    ----------
    rule
        The limit.
    unit, meaning
        Unit of the measure, and its definition.
    recordings
        Number of recordings that break it.
    candidates
        The worst of them, the worst first.
    """

    rule: Rule
    unit: str
    meaning: str
    recordings: int
    candidates: tuple[Candidate, ...]


@dataclass(slots=True)
class FailureGroup:
    """Recordings that failed for the same cause, or are partial.

    Attributes
    ----------
    cause
        The cause.
    recordings
        Number of recordings.
    shown
        The first of them: rows of the failures table.
    """

    cause: str
    recordings: int = 0
    shown: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """Recordings that sound the same.

    Attributes
    ----------
    groups
        Number of groups.
    copies
        Number of recordings beside the best of each group.
    copies_seconds
        Length of the copies.
    leaking
        Number of groups with rows in several splits.
    contained
        Number of pairs of which one recording contains the other.
    shown
        The groups with the most sound in copies, each with the best recording first.
    """

    groups: int
    copies: int
    copies_seconds: float
    leaking: int
    contained: int
    shown: tuple[tuple[MatchedRecording, ...], ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report says.

    Attributes
    ----------
    reported
        Snapshot, profile and command.
    top
        Largest number of examples of each defect, cause, and kind of thing.
    recordings, seconds
        Number of recordings, and their length.
    flagged
        Number of recordings that failed or break a limit.
    charts
        The overview.
    defects
        Limits that recordings break, the most frequent first.
    failures
        Failures by cause, the most frequent first.
    duplicates
        Duplicates; ``None`` if the recipe does not look for them.
    """

    reported: ReportedSnapshot
    top: int
    recordings: int
    seconds: float
    flagged: int
    charts: tuple[Chart, ...]
    defects: tuple[Defect, ...]
    failures: tuple[FailureGroup, ...]
    duplicates: DuplicateGroups | None


def collect(reported: ReportedSnapshot, top: int, folder: Path) -> Contents:
    """Return what a report says.

    Parameters
    ----------
    reported
        Snapshot, profile and command.
    top
        Largest number of examples of each kind.
    folder
        Local folder for files of the index that come from another machine.

    Raises
    ------
    DatasetError
        A file of the index is missing or damaged.
    """
    table = RecordingTable(reported.opened, reported.profile, folder)
    try:
        recordings, seconds = table.count(ALWAYS)
        flagged, _ = table.count(table.condition(Filter((("defect", ANY),))))
        return Contents(
            reported,
            top,
            recordings,
            seconds,
            flagged,
            tuple(charts(table, ALWAYS)),
            tuple(_defects(table, reported, top)),
            tuple(_failures(reported, top)),
            _duplicates(reported, top),
        )
    finally:
        table.close()


def _defects(table: RecordingTable, reported: ReportedSnapshot, top: int) -> Iterator[Defect]:
    for rule, recordings in table.defects(ALWAYS):
        if recordings:
            field_of_rule = table.fields[rule.measure]
            rows = _worst(table, rule, top)
            found = tuple(_candidate(row, reported, rule) for row in rows)
            unit, meaning = field_of_rule.unit, field_of_rule.meaning
            yield Defect(rule, unit, meaning, recordings, found)


def _worst(table: RecordingTable, rule: Rule, top: int) -> list[dict[str, Any]]:
    """Return all columns of the recordings that exceed a limit most, the worst first.

    Those for which the measure is not defined come last; those of a measure that is true or false
    are in the order of their URIs.
    """
    condition, name = table.breaks(rule), rule.measure
    sorts = [name] * (rule.min is not None) + [f"-{name}"] * (rule.max is not None) or ["uri"]
    rows = [row for sort in sorts for row in table.page(condition, sort, [name], 0, top)]
    if rule.is_ is None:
        rows.sort(key=lambda row: -_excess(rule, row[name]))
    ids = list(dict.fromkeys(row["recording_id"] for row in rows))[:top]
    return [row for row in map(table.recording, ids) if row is not None]


def _excess(rule: Rule, value: float | None) -> float:
    if value is None:
        return float("-inf")
    above = value - rule.max if rule.max is not None else float("-inf")
    return max(above, rule.min - value if rule.min is not None else float("-inf"))


def _candidate(row: Mapping[str, Any], reported: ReportedSnapshot, rule: Rule) -> Candidate:
    only = reported.profile.model_copy(update={"rules": (rule,)})
    (finding,) = judge(readings_of_row(row["measures"]), only)
    names = "recording_id", "uri", "fingerprint", "size_bytes", "seconds", "split"
    columns = {name: row[name] for name in names}
    shards, channel = tuple(row["shards"] or ()), _channel(row["measures"], finding)
    return Candidate(
        **columns, shards=shards, audio=audio_of(row), finding=finding, channel=channel
    )


def _channel(measures: Mapping[str, Any], finding: Finding) -> int | None:
    """Return the channel of the event that a finding's second comes from."""
    events = (measures.get(finding.measure.partition(".")[0]) or {}).get("events") or ()
    channels = (event["channel"] for event in events if event["second"] == finding.second)
    return next(channels, None)


def _failures(reported: ReportedSnapshot, top: int) -> list[FailureGroup]:
    opened, groups = reported.opened, dict[str, FailureGroup]()
    for row in read_index(opened.store, opened.snapshot.index, "failures"):
        group = groups.setdefault(row["cause"], FailureGroup(row["cause"]))
        group.recordings += 1
        if len(group.shown) < top:
            group.shown.append(row)
    return sorted(groups.values(), key=lambda group: (-group.recordings, group.cause))


def _duplicates(reported: ReportedSnapshot, top: int) -> DuplicateGroups | None:
    found = duplicates_of(reported.opened)
    if found is None:
        return None
    by_length = sorted(found.groups, key=lambda group: -sum(m.seconds for m in group[1:]))
    return DuplicateGroups(
        groups=len(found.groups),
        copies=len(found.extra),
        copies_seconds=sum(member.seconds for member in found.extra),
        leaking=len(found.leaking),
        contained=sum(match.kind == "contained" for match in found.matches),
        shown=tuple(by_length[:top]),
    )
