"""Texts and tables about duplicates."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

from melmill.pipelines.cli.check_texts import printable
from melmill.pipelines.duplicates import Duplicates, MatchedRecording, RecordingMatch
from melmill.transforms.core.naming import number_of

#: Groups and contained recordings that are printed.
_SHOWN = 20

_TABLE = [
    *("kind", "first", "second", "first_split", "second_split", "offset_seconds"),
    *("overlap_seconds", "error"),
]


def duplicates_text(found: Duplicates) -> str:
    """Return the duplicates as text: the groups, then recordings that are parts of others."""
    contained = [match for match in found.matches if match.kind == "contained"]
    lines = [*_summary(found, len(contained))]
    for number, members in enumerate(found.groups[:_SHOWN], 1):
        lines += ["", f"{number}. {_splits(members)}"]
        lines += [f"   {_recording_text(member, members[0], found)}" for member in members]
    lines += _more(len(found.groups), "group")
    if contained:
        lines += ["", "Parts of longer recordings:"]
        lines += [f"   {_contained_text(match)}" for match in contained[:_SHOWN]]
        lines += _more(len(contained), "recording")
    return "\n".join(map(printable, lines))


def _summary(found: Duplicates, contained: int) -> Iterator[str]:
    searched = " and ".join(
        f"{dataset} (version {version})"
        for dataset, version in zip(found.datasets, found.versions, strict=True)
    )
    counts = f"{number_of(len(found.groups), 'group')} of duplicates"
    text = f"{searched}: {number_of(found.recordings, 'recording')}, {counts}"
    text += f" ({number_of(len(found.extra), 'recording')} more than needed)" if found.extra else ""
    text += f", {number_of(contained, 'part')} of longer recordings" if contained else ""
    yield text
    if found.leaking:
        leaking = number_of(len(found.leaking), "group")
        yield f"{leaking} in several splits: a test would hold what the model was trained on"


def _splits(members: tuple[MatchedRecording, ...]) -> str:
    splits = sorted({member.split for member in members})
    warning = " (in several splits)" if len(splits) > 1 else ""
    return f"{number_of(len(members), 'recording')} in {', '.join(splits)}{warning}"


def _recording_text(member: MatchedRecording, best: MatchedRecording, found: Duplicates) -> str:
    relation = "exact" if member.digest == best.digest else "same"
    place = f" in {found.datasets[member.dataset]}" if len(found.datasets) > 1 else ""
    return (
        f"{'best' if member is best else relation:5}  {member.uri} ({member.seconds:,.1f} s, "
        f"{member.sample_rate_hz} Hz, {number_of(member.channels, 'channel')}, "
        f"{member.split}){place}"
    )


def _contained_text(match: RecordingMatch) -> str:
    start = abs(match.offset_seconds)
    inner, outer = match.first, match.second
    if inner.seconds > outer.seconds:
        inner, outer = outer, inner
    return f"{inner.uri} is in {outer.uri}, from {start:,.1f} s on"


def _more(number: int, noun: str) -> list[str]:
    rest = number - _SHOWN
    return [f"   and {number_of(rest, f'more {noun}')}; --json or --csv list all"] * (rest > 0)


def duplicates_json(found: Duplicates) -> dict[str, Any]:
    """Return the duplicates as plain values."""
    values = asdict(found)
    for match in values["matches"]:
        match["first"], match["second"] = match["first"]["uri"], match["second"]["uri"]
    return {**values, "in_several_splits": len(found.leaking)}


def write_matches_csv(found: Duplicates, file: TextIO) -> None:
    """Write all matches as CSV, with a header."""
    writer = csv.writer(file)
    writer.writerow(_TABLE)
    for match in found.matches:
        ends = match.first, match.second
        numbers = match.offset_seconds, match.overlap_seconds, round(match.error, 4)
        writer.writerow(
            [match.kind, *(end.uri for end in ends), *(end.split for end in ends), *numbers]
        )


def write_exclude_list(found: Duplicates, file: TextIO) -> None:
    """Write a table that ``catalogue.exclude`` takes: all recordings but the best of each group."""
    writer = csv.writer(file)
    writer.writerow(["uri", "duplicate_of"])
    for members in found.groups:
        writer.writerows([member.uri, members[0].uri] for member in members[1:])
