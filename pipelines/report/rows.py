"""All findings of a dataset as rows: defects, failures and duplicates, for CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TextIO

from melmill.pipelines.check_dataset import check_snapshot
from melmill.pipelines.profiles import Finding, Rule
from melmill.pipelines.report.snapshot import ReportedSnapshot, duplicates_of
from melmill.transforms.measures.meters import Reading


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding about a recording.

    Attributes
    ----------
    kind
        ``defect``: a reading breaks a limit. ``failure``: the recording cannot be read, or not to
        its end. ``not_measured``: the dataset has no readings of it. ``duplicate``: another
        recording sounds the same.
    recording_id, uri
        The recording.
    measure, value, limit, unit, second, reason
        See :class:`~melmill.pipelines.profiles.Finding`. Of a duplicate, the value is the share of
        the fingerprints' bits that differ, and the second is the place in the other recording at
        which this one starts.
    cause
        Cause of a failure, or kind of a duplicate: ``exact``, ``same`` or ``contained``.
    other_recording_id, other_uri
        The other recording of a duplicate.
    """

    kind: Literal["defect", "failure", "not_measured", "duplicate"]
    recording_id: str
    uri: str
    measure: str = ""
    value: Reading = None
    limit: float | bool | None = None
    unit: str = ""
    second: float | None = None
    reason: str = ""
    cause: str = ""
    other_recording_id: str = ""
    other_uri: str = ""


def finding_rows(reported: ReportedSnapshot) -> Iterator[FindingRow]:
    """Yield all findings: those of each recording in the order of the index, then duplicates.

    Defects and failures are what :func:`~melmill.pipelines.check_dataset.check_snapshot` finds. One
    part of the index is in memory at a time, but all duplicates are.
    """
    for checked in check_snapshot(reported.opened, reported.measured_profile):
        for finding in checked.findings:
            if finding.cause != "not_measured" or reported.measured_profile.rules:
                yield _row(checked.recording_id, checked.uri, finding)
    duplicates = duplicates_of(reported.opened)
    for match in duplicates.matches if duplicates else ():
        yield FindingRow(
            "duplicate",
            match.first.recording_id,
            match.first.uri,
            value=match.error,
            second=match.offset_seconds + 0.0,  # not -0
            reason=_DUPLICATES[match.kind],
            cause=match.kind,
            other_recording_id=match.second.recording_id,
            other_uri=match.second.uri,
        )


_DUPLICATES = {
    "exact": "all samples are equal",
    "same": "the same recording in another form",
    "contained": "most of it is in the other recording",
}


def _row(recording_id: str, uri: str, finding: Finding) -> FindingRow:
    is_missing = finding.cause == "not_measured"
    return FindingRow(
        "not_measured" if is_missing else "failure" if finding.cause else "defect",
        recording_id,
        uri,
        finding.measure,
        finding.value,
        finding.limit,
        finding.unit,
        finding.second,
        finding.reason,
        "" if is_missing else finding.cause,
    )


def write_csv(reported: ReportedSnapshot, file: TextIO) -> int:
    """Write a table with a row for each finding, and return the number of rows."""
    writer = csv.writer(file)
    writer.writerow([field.name for field in fields(FindingRow)])
    number = 0
    for row in finding_rows(reported):
        cells = asdict(row).values()
        writer.writerow(
            str(cell).lower() if isinstance(cell, bool) else "" if cell is None else cell
            for cell in cells
        )
        number += 1
    return number


def write_json(reported: ReportedSnapshot, file: TextIO) -> int:
    """Write an object that describes the report and lists all findings; return their number.

    Each finding has a line of its own.
    """
    opened, number = reported.opened, 0
    head: dict[str, Any] = {
        "dataset": opened.store.root,
        "version": opened.snapshot.version,
        "committed": reported.committed,
        "catalogue": opened.snapshot.catalogue,
        "profile": reported.profile.name,
        "limits": [_limit(rule, is_measured) for rule, is_measured in reported.limits],
        "command": reported.command,
    }
    file.write(json.dumps(head, indent=1)[:-2] + ',\n "findings": [')
    for row in finding_rows(reported):
        file.write(("," if number else "") + "\n  " + json.dumps(asdict(row)))
        number += 1
    file.write("\n ]\n}\n")
    return number


def _limit(rule: Rule, is_measured: bool) -> dict[str, Any]:
    return {
        "measure": rule.measure,
        "min": rule.min,
        "max": rule.max,
        "is": rule.is_,
        "undefined": rule.undefined,
        "reason": rule.why,
        "is_measured": is_measured,
    }
