"""Texts and tables about duplicates."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

from melmill.pipelines.cli.check_texts import printable
from melmill.pipelines.duplicates import (
    Duplicates,
    RecordingMatch,
    splits_of,
)
from melmill.transforms.core.naming import number_of
from melmill.transforms.duplicates.grouping import MatchedRecording

#: Groups and contained recordings that are printed.
_SHOWN = 20

_TABLE = [
    *("kind", "first", "second", "first_id", "second_id", "first_split", "second_split"),
    *("offset_seconds", "overlap_seconds", "error"),
]


def duplicates_text(found: Duplicates) -> str:
    """Return the duplicates as text: the groups, then recordings that are parts of others."""
    together = {m.recording_id: number for number, ms in enumerate(found.groups) for m in ms}
    contained = [
        match
        for match in found.matches
        if match.kind == "contained"
        and together.get(match.first.recording_id, -1)
        != together.get(match.second.recording_id, -2)
    ]
    lines = [*_summary(found, len(contained))]
    for number, members in enumerate(found.groups[:_SHOWN], 1):
        lines += ["", f"{number}. {_splits(members)}"]
        lines += [f"   {_recording_text(member, members[0], found)}" for member in members[:_SHOWN]]
        lines += _more(len(members), "recording")
    lines += _more(len(found.groups), "group")
    if contained:
        lines += ["", "Parts of longer recordings:"]
        lines += [f"   {_contained_text(match)}" for match in contained[:_SHOWN]]
        lines += _more(len(contained), "part")
    return "\n".join(map(printable, lines))


def _summary(found: Duplicates, contained: int) -> Iterator[str]:
    searched = " and ".join(
        f"{dataset} (version {version})"
        for dataset, version in zip(found.datasets, found.versions, strict=True)
    )
    shared = "shared recordings" if len(found.datasets) > 1 else "duplicates"
    text = f"{searched}: {number_of(found.recordings, 'recording')}, "
    text += f"{number_of(len(found.groups), 'group')} of {shared}"
    extra = [member for member in found.extra if member.status != "duplicate"]
    if len(found.datasets) == 1 and extra:
        text += f" ({number_of(len(extra), 'recording')} more than needed)"
    text += f", {number_of(contained, 'part')} of longer recordings" if contained else ""
    yield text
    if found.leaking:
        leaking = number_of(len(found.leaking), "group")
        yield f"{leaking} in several splits: a test would hold what the model was trained on"


def _splits(members: tuple[MatchedRecording, ...]) -> str:
    splits = sorted(splits_of(members))
    warning = " (in several splits)" if len(splits) > 1 else ""
    place = f" in {', '.join(splits)}{warning}" if splits else ""
    return f"{number_of(len(members), 'recording')}{place}"


def _recording_text(member: MatchedRecording, best: MatchedRecording, found: Duplicates) -> str:
    relation = "exact" if member.digest == best.digest else "same"
    left_out = ", left out" if member.status == "duplicate" else ""
    place = f" in {found.datasets[member.dataset]}" if len(found.datasets) > 1 else ""
    return (
        f"{'best' if member is best else relation:5}  {member.uri} ({member.seconds:,.1f} s, "
        f"{member.sample_rate_hz} Hz, {number_of(member.channels, 'channel')}, "
        f"{member.split}{left_out}){place}"
    )


def _contained_text(match: RecordingMatch) -> str:
    start = f"{match.offset_seconds:,.1f} s"
    return f"{match.first.uri} is in {match.second.uri}, from {start} on"


def _more(number: int, noun: str) -> list[str]:
    rest = number - _SHOWN
    return [f"   and {number_of(rest, f'more {noun}')}; --json or --csv list all"] * (rest > 0)


def duplicates_json(found: Duplicates) -> dict[str, Any]:
    """Return the duplicates as plain values."""
    values = asdict(found)
    for match in values["matches"]:
        for end in ("first", "second"):
            match[end] = {name: match[end][name] for name in ("dataset", "recording_id", "uri")}
    del values["together"]
    return {**values, "in_several_splits": len(found.leaking)}


def write_matches_csv(found: Duplicates, file: TextIO) -> None:
    """Write all matches as CSV, with a header."""
    writer = csv.writer(file)
    writer.writerow(_TABLE)
    for match in found.matches:
        ends = match.first, match.second
        numbers = match.offset_seconds, match.overlap_seconds, round(match.error, 4)
        texts = [getattr(end, name) for name in ("uri", "recording_id", "split") for end in ends]
        writer.writerow([match.kind, *texts, *numbers])


def write_exclude_list(found: Duplicates, file: TextIO) -> list[str]:
    """Write a table that ``catalogue.exclude`` takes: the recordings that are more than needed.

    Returns
    -------
    list of str
        URIs that are not in the table, because their file has other recordings, too.
    """
    writer = csv.writer(file)
    writer.writerow(["uri", "duplicate_of"])
    extra = {(member.dataset, member.recording_id) for member in found.extra}
    for members in found.groups:
        kept = next(m.uri for m in members if (m.dataset, m.recording_id) not in extra)
        uris = dict.fromkeys(m.uri for m in members if (m.dataset, m.recording_id) in extra)
        writer.writerows([uri, kept] for uri in uris if uri not in found.together)
    return sorted({member.uri for member in found.extra} & found.together)
