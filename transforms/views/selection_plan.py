"""The selection of a view: an expression over measures decides which recordings it keeps.

The launcher reads the index once, counts what is kept, and writes the numbers of rows by shard into
the view's staging folder. Workers then list the refused recordings of each shard. Both hold a part
of the index at a time, and what is counted by shard.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import number_of
from melmill.transforms.index.tables import read_fields
from melmill.transforms.measures.expressions import Selection, selection_of
from melmill.transforms.rows.distribution import DURATION_EDGES_S, histogram
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot.totals import Totals, ordered_shards
from melmill.transforms.views.exports import ExportJob
from melmill.transforms.views.kept_rows import read_working_file

#: File with the numbers of rows that are kept of shards, while an export runs.
_PLAN = "staging/plan.json"

_COLUMNS = ["recording_id", "status", "split", "seconds", "rows", "shards"]
_ROWS_PER_READ = 4096


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The numbers of recordings and rows that a selection leaves out of a view."""

    recordings: int = 0
    rows: int = 0

    def __str__(self) -> str:
        """Return the numbers as text.

        >>> str(LeftOut(1, 1200))
        '1 recording with 1,200 rows'
        """
        return f"{number_of(self.recordings, 'recording')} with {number_of(self.rows, 'row')}"


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection keeps of a snapshot.

    Attributes
    ----------
    kept
        Number of rows that are kept of each shard from which rows are left out, by its name.
    totals
        Totals of the recordings that are kept; their rows are not added up.
    left_out
        What is left out.
    """

    kept: dict[str, int]
    totals: Totals
    left_out: LeftOut


def check_select(expression: str | None) -> str:
    """Return an expression; raise ``ConfigError`` if it is wrong.

    >>> check_select(" level.peak  < 0 "), check_select(None)
    ('level.peak < 0', '')
    """
    if expression is None:
        return ""
    try:
        return selection_of(" ".join(expression.split())).expression
    except ValueError as error:
        raise ConfigError(f"--select {expression!r}: {error}") from None


def select_rows(job: ExportJob, parts: int) -> Selected:
    """Return what the job's selection keeps of a snapshot.

    Parameters
    ----------
    job
        Export with a selection.
    parts
        Number of parts of the snapshot's index.
    """
    totals, refused = Totals(), _Refused()
    for part in range(parts):
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        for row, is_refused in _judged(job, part):
            if is_refused:
                refused.add(row)
            else:
                totals.recordings[row["status"]] += 1
                seconds[row["split"]].append(row["seconds"])
        _add_lengths(totals, seconds)
    shards = ordered_shards(job.dataset, job.index)
    kept = {shard.name: shard.rows - n for shard in shards if (n := refused.rows_in(shard))}
    return Selected(kept, totals, LeftOut(refused.recordings, refused.rows))


@dataclass(slots=True)
class _Refused:
    recordings: int = 0
    rows: int = 0
    by_shard: Counter[str] = field(default_factory=Counter)
    #: Recordings in several shards: there are at most as many of these as shards.
    parted: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any]) -> None:
        self.recordings += 1
        self.rows += row["rows"]
        if len(row["shards"]) > 1:
            self.parted.add(row["recording_id"])
        else:
            self.by_shard[row["shards"][0]] += row["rows"]

    def rows_in(self, shard: ShardSummary) -> int:
        parted = (entry.rows for entry in shard.recordings if entry.recording_id in self.parted)
        return self.by_shard[shard.name] + sum(parted)


def _add_lengths(totals: Totals, seconds: Mapping[str, list[float]]) -> None:
    for split, lengths in seconds.items():
        content = totals.split(split)
        content.recordings += len(lengths)
        content.seconds += sum(lengths)
        content.durations += histogram(lengths, DURATION_EDGES_S)
        totals.seconds += sum(lengths)


def refused_in_part(part: int, job: ExportJob) -> Iterator[tuple[str, str]]:
    """Yield a shard and a refused recording that has rows in it, for a part of the index."""
    for row, is_refused in _judged(job, part):
        if is_refused:
            yield from ((shard, row["recording_id"]) for shard in row["shards"])


def _judged(job: ExportJob, part: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield each recording with rows in a part of the index, and whether it is refused."""
    selection = selection_of(job.select)
    fields = [*_COLUMNS, *(f"measures.{name}" for name in selection.measures)]
    table = read_fields(job.dataset, job.index, "recordings", part, fields)
    for batch in table.to_batches(_ROWS_PER_READ):
        yield from ((row, _refuses(selection, row)) for row in batch.to_pylist() if row["rows"])


def _refuses(selection: Selection, row: Mapping[str, Any]) -> bool:
    return bool(selection.refused_by(lambda name: row[f"measures.{name}"]))


def write_plan(job: ExportJob, selected: Selected) -> None:
    """Write the numbers of rows that are kept, for the workers."""
    job.output.put(_PLAN, json.dumps(selected.kept).encode())


def read_plan(job: ExportJob) -> dict[str, int]:
    """Return the number of rows that are kept of each shard from which rows are left out."""
    if not job.select:
        return {}
    kept: dict[str, int] = json.loads(read_working_file(job.output, _PLAN))
    return kept
