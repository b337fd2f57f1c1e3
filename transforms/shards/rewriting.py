"""Rewrites shards from their stored rows: removes or relabels rows, and decodes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from melmill.transforms.core.naming import digest
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.plan.change_records import Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import RecordingRows, ShardSummary
from melmill.transforms.shards.writing import read_shard, without, write_again


def withdraw_recordings(
    summary: ShardSummary, recording_ids: Collection[str], job: ExtractJob
) -> ShardSummary:
    """Rewrite a shard without some recordings, from its own rows; nothing is decoded.

    A dataset holds all rows of a recording or none. If one span of a recording failed, its rows
    are therefore removed from the shards that hold its other spans.
    """
    removed = {entry.recording_id for entry in summary.recordings} & set(recording_ids)
    if not removed or summary.parquet is None:
        return summary
    plan = digest("withdrawn", summary.name, *sorted(removed))
    kept = (without(batch, removed) for batch in read_shard(job.store, summary))
    expected = [entry for entry in summary.recordings if entry.recording_id not in removed]
    measured = tuple(part for part in summary.measured if part.recording_id not in removed)
    rewritten = write_again(plan, summary.split, kept, expected, job, summary.failures)
    return replace(rewritten, meters=summary.meters, measured=measured)


def rewrite_shard(
    summary: ShardSummary, touched: Sequence[Touched], job: ExtractJob
) -> Iterator[Replaced | Rewritten]:
    """Rewrite a shard's rows, into one new shard for each split that they now belong to.

    Parameters
    ----------
    summary
        Summary of the shard.
    touched
        Recordings of the shard that are removed, or that get new labels, a new URI or split.
    job
        Job of the refresh.

    Raises
    ------
    DatasetError
        If the shard is missing or damaged.
    """
    changes = {change.recording_id: change for change in touched}
    splits = {_split(entry.recording_id, changes, summary) for entry in summary.recordings}
    change_texts = sorted(map(repr, touched))
    for split in sorted(name for name in splits if name is not None):
        plan = digest("rewritten", summary.name, split, job.run_id, *change_texts)
        batches = _rows_of_split(summary, split, changes, job)
        expected = _expected(summary, split, changes)
        yield Rewritten((summary.name,), write_again(plan, split, batches, expected, job))
    yield Replaced(summary.name)


def _expected(
    summary: ShardSummary, split: str, changes: Mapping[str, Touched]
) -> Iterator[RecordingRows]:
    """Yield the recordings of a shard that now belong to a split, with their new ids."""
    for entry in summary.recordings:
        change = changes.get(entry.recording_id)
        if _split(entry.recording_id, changes, summary) == split:
            recording = change.recording if change else None
            name = recording.recording_id if recording else entry.recording_id
            yield replace(entry, recording_id=name)


def _split(recording_id: str, changes: Mapping[str, Touched], summary: ShardSummary) -> str | None:
    """Return the new split of a recording; ``None`` if the recording is removed."""
    change = changes.get(recording_id)
    return summary.split if change is None else change.split


def _rows_of_split(
    summary: ShardSummary, split: str, changes: Mapping[str, Touched], job: ExtractJob
) -> Iterator[RowBatch]:
    for batch in read_shard(job.store, summary):
        names = list(batch.columns["recording_id"])
        keep = [i for i, name in enumerate(names) if _split(name, changes, summary) == split]
        kept = batch.take(keep)
        yield RowBatch(_relabel(kept, changes, job), kept.features)


def _relabel(
    batch: RowBatch, changes: Mapping[str, Touched], job: ExtractJob
) -> dict[str, Sequence[Any]]:
    """Return a batch's columns, as the job's schema has them, with the recordings' new values."""
    updates = [_new_values(name, changes) for name in batch.columns["recording_id"]]
    columns: dict[str, Sequence[Any]] = {}
    for name in job.schema.columns():
        old_values = batch.columns.get(name, [None] * batch.rows)
        columns[name] = [
            update.get(name, old) for update, old in zip(updates, old_values, strict=True)
        ]
    return columns


def _new_values(recording_id: str, changes: Mapping[str, Touched]) -> dict[str, Any]:
    """Return the new values of the columns that depend on the recording, if it changed."""
    change = changes.get(recording_id)
    recording = change.recording if change else None
    if recording is None:
        return {}
    own = {"recording_id": recording.recording_id, "uri": recording.uri}
    return {**own, **dict(recording.labels)}
