"""Texts and tables about patterns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, TextIO

from melmill.pipelines.cli.check_texts import printable
from melmill.transforms.core.naming import number_of
from melmill.transforms.patterns.reasons import Reason
from melmill.transforms.patterns.results import (
    Cluster,
    Patterns,
    RankedChunk,
    RankedRecording,
)

_TABLE = [
    *("list", "cluster", "distance", "uri", "recording_id", "split", "seconds", "chunks"),
    *("chunk_index", "channel", "start_seconds", "reasons"),
]


_NOT_MEASURED = (
    "No listed recording was measured, so there are no reasons. To measure: "
    "melmill refresh CATALOGUE DATASET --set quality=basic"
)


def patterns_text(found: Patterns) -> str:
    """Return the lists and the clusters as text."""
    lines = [
        f"{found.dataset} (version {found.version}): {number_of(found.compared, 'recording')}, "
        f"{number_of(found.compared_chunks, 'chunk')} of {found.feature}"
    ]
    about = f"like {found.like.uri}" if found.like else "unusual"
    lines += ["", f"Recordings most {about} (a distance, and why):"]
    lines += map(_recording_text, found.recordings)
    lines += ["", f"Chunks most {about}, one of each recording:"]
    lines += map(_chunk_text, found.chunks)
    for number, cluster in enumerate(found.clusters, 1):
        lines += ["", *_cluster_lines(number, cluster)]
    if not found.measured:
        lines += ["", _NOT_MEASURED]
    return "\n".join(map(printable, lines))


def _recording_text(recording: RankedRecording) -> str:
    reasons = f": {reasons_text(recording.reasons)}" if recording.reasons else ""
    place = f"{recording.seconds:,.1f} s, {recording.split}"
    return f"  {recording.distance:6.2f}  {recording.uri} ({place}){reasons}"


def _chunk_text(chunk: RankedChunk) -> str:
    channel = f", channel {chunk.channel}" if chunk.channel else ""
    place = f"at {chunk.start_seconds:,.1f} s{channel}, {chunk.split}"
    return f"  {chunk.distance:6.2f}  {chunk.uri} ({place})"


def _cluster_lines(number: int, cluster: Cluster) -> Iterator[str]:
    chunks = number_of(cluster.chunk_count, "chunk")
    size = f"{number_of(cluster.recording_count, 'recording')}, {chunks}"
    yield f"Cluster {number}: {size}"
    if cluster.typical:
        yield f"  typical: {reasons_text(cluster.typical)}"
    yield from (f"  {recording.distance:6.2f}  {recording.uri}" for recording in cluster.nearest)


def reasons_text(reasons: Iterable[Reason]) -> str:
    """Return reasons in a line."""
    return "; ".join(reason.text for reason in reasons)


def patterns_json(found: Patterns) -> dict[str, Any]:
    """Return the patterns as plain values."""
    return asdict(found)


def write_patterns_csv(found: Patterns, file: TextIO) -> None:
    """Write all lists as CSV, with a header: a row for each recording or chunk of a list."""
    writer = csv.writer(file)
    writer.writerow(_TABLE)
    writer.writerows(_recording_row("recording", "", recording) for recording in found.recordings)
    for chunk in found.chunks:
        names = chunk.uri, chunk.recording_id, chunk.split
        place = chunk.chunk_index, chunk.channel, chunk.start_seconds
        writer.writerow(["chunk", "", chunk.distance, *names, "", "", *place, ""])
    for number, cluster in enumerate(found.clusters, 1):
        writer.writerows(_recording_row("cluster", number, nearest) for nearest in cluster.nearest)


def _recording_row(name: str, cluster: int | str, recording: RankedRecording) -> list[Any]:
    names = recording.uri, recording.recording_id, recording.split
    numbers = recording.seconds, recording.chunks, "", "", ""
    return [name, cluster, recording.distance, *names, *numbers, reasons_text(recording.reasons)]
