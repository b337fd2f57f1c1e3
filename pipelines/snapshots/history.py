"""A dataset's snapshots over time: which there are, how they differ, and back to one of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import lcm
from pathlib import Path
from typing import Any

import pyarrow as pa

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import bucket
from melmill.transforms.index.tables import count_parts, read_part
from melmill.transforms.snapshot.card import past_card, statistics, to_json
from melmill.transforms.snapshot.delta import (
    Past,
    Snapshot,
    commit,
    read_history,
    require_past,
)
from melmill.transforms.snapshot.totals import Totals, ordered_shards, require_consistent
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store

_COMPARED = ["recording_id", "uri", "feature_key", "status", "split", "labels_digest", "rows"]

ADDED, CHANGED, REMOVED = "added", "changed", "removed"


def history(store: Store) -> list[dict[str, Any]]:
    """List the snapshots that were committed, the latest first."""
    OpenSnapshot.current(store)
    return [_line(store, past) for past in read_history(store)]


def _line(store: Store, past: Past) -> dict[str, Any]:
    snapshot = past.snapshot
    found = snapshot.statistics
    if not found and past.kept:
        found = OpenSnapshot(store, snapshot).statistics
    splits = found.get("splits", {}).values()
    return {
        "version": snapshot.version,
        "dataset_version": snapshot.dataset_version,
        "time": iso_time(past.committed_ms),
        "operation": snapshot.operation,
        "recordings": sum(split["recordings"] for split in splits),
        "rows": sum(split["rows"] for split in splits),
        "catalogue": snapshot.catalogue,
        "index": snapshot.index,
        "kept": past.kept,
    }


def iso_time(ms: int) -> str:
    """Write a time for people and scripts.

    >>> iso_time(0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat()


@dataclass(frozen=True, slots=True)
class RecordingChange:
    """How one recording differs between two snapshots.

    Attributes
    ----------
    kind
        ``added``, ``changed`` or ``removed``.
    uri
        Of the recording.
    rows_before, rows_after
        What either snapshot holds of it.
    """

    kind: str
    uri: str
    rows_before: int
    rows_after: int


def compare(store: Store, before: int, after: int) -> Iterator[RecordingChange]:
    """Name the recordings in which two snapshots differ; a part of both is held at a time.

    Raises
    ------
    DatasetError
        One is not kept.
    """
    a, b = (require_past(store, version).snapshot for version in (before, after))
    if a.index != b.index:
        for one, other in _aligned(store, a, b):
            yield from _compare_parts(one, other)


def _aligned(store: Store, a: Snapshot, b: Snapshot) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Read the same recordings of two indexes, as few at a time as their division allows."""
    sides = [(one.index, one.parts or count_parts(store, one.index)) for one in (a, b)]
    parts = lcm(*(number for _, number in sides))
    for part in range(parts):
        one, other = (_read(store, *side, part, parts) for side in sides)
        yield one, other


def _read(store: Store, index: str, own_parts: int, part: int, parts: int) -> pa.Table:
    """Read one of so many parts of an index that is divided into fewer, or as many."""
    table = read_part(store, index, "recordings", part % own_parts, _COMPARED)
    if own_parts == parts:
        return table
    mine = [bucket(name, parts) == part for name in table["recording_id"].to_pylist()]
    return table.filter(pa.array(mine, pa.bool_()))


def _compare_parts(before: pa.Table, after: pa.Table) -> Iterator[RecordingChange]:
    joined = before.join(
        after, "recording_id", join_type="full outer", left_suffix="_a", right_suffix="_b"
    ).sort_by("recording_id")
    for batch in joined.to_batches(4096):
        for row in batch.to_pylist():
            yield from _compare_rows(row)


def _compare_rows(row: dict[str, Any]) -> Iterator[RecordingChange]:
    before, after = ([row[f"{name}_{side}"] for name in _COMPARED[1:]] for side in "ab")
    rows = row["rows_a"] or 0, row["rows_b"] or 0
    if row["status_a"] is None:
        yield RecordingChange(ADDED, row["uri_b"], *rows)
    elif row["status_b"] is None:
        yield RecordingChange(REMOVED, row["uri_a"], *rows)
    elif before != after:
        yield RecordingChange(CHANGED, row["uri_b"], *rows)


def count_changes(changes: Iterator[RecordingChange], examples: int = 10) -> dict[str, Any]:
    """Count recordings and rows that were added, changed or removed, and name some."""
    recordings: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    named: dict[str, list[str]] = {}
    for change in changes:
        recordings[change.kind] += 1
        rows[change.kind] += max(change.rows_before, change.rows_after)
        some = named.setdefault(change.kind, [])
        if len(some) < examples:
            some.append(change.uri)
    kinds = (ADDED, CHANGED, REMOVED)
    return {
        "recordings": {kind: recordings[kind] for kind in kinds},
        "rows": {kind: rows[kind] for kind in kinds},
        "examples": named,
    }


def rollback(store: Store, version: int) -> OpenSnapshot:
    """Make what an earlier snapshot held the dataset's content again, by a new commit.

    Raises
    ------
    DatasetError
        That snapshot is not kept, or lacks a shard.
    ConflictError
        Another run committed meanwhile.
    """
    opened, past = OpenSnapshot.current(store), OpenSnapshot.past(store, version)
    current = opened.snapshot
    require_shards(store, past.snapshot.index)
    require_exclusive_commits(store, "staging")
    if past.snapshot.index == current.index:
        opened.mend_side_files()
        return opened
    same = past.snapshot.dataset_version == current.dataset_version
    snapshot = replace(
        past.snapshot,
        version=current.version,
        operation="rollback",
        statistics=past.statistics,
        dataset_version=current.dataset_version + (not same),
        taken_down=current.taken_down,
        replaced={},
    )
    commit(store, snapshot, past.schema.table())
    committed = OpenSnapshot.current(store).knowing(past.totals, past.schema)
    committed.write_card()
    return committed


def require_shards(store: Store, index: str) -> None:
    """See that every file of a snapshot is there; ``DatasetError`` names what is missing."""
    named = {shard.parquet.name for shard in ordered_shards(store, index) if shard.parquet}
    folders = {name.partition("/")[0] for name in named}
    missing = named - {name for folder in folders for name in store.names(folder)}
    if missing:
        raise DatasetError(f"{store.root}: shard {min(missing)} is missing")
    require_consistent(store, index, named)


def checkout(store: Store, version: int, output: Path) -> Totals:
    """Write the card of a kept snapshot, with its list of files, into a folder of its own.

    The shards stay where they are: ``datasets.load_dataset(output)`` reads them from there, and
    ``files.json`` names them for everything else.

    Raises
    ------
    DatasetError
        That snapshot is not kept, or the folder is not empty.
    """
    past = OpenSnapshot.past(store, version)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DatasetError(f"{output}: is not empty; name a new folder")
    require_shards(store, past.snapshot.index)
    totals = past.totals
    card, files = past_card(store, past.snapshot, totals, past.schema)
    output.mkdir(parents=True, exist_ok=True)
    (output / "README.md").write_bytes(card)
    (output / "files.json").write_bytes(to_json(files))
    (output / "statistics.json").write_bytes(to_json(statistics(totals)))
    (output / "snapshot.json").write_text(
        json.dumps(_snapshot_json(past.snapshot), indent=1) + "\n"
    )
    return totals


def _snapshot_json(past: Snapshot) -> dict[str, Any]:
    return {
        "version": past.version,
        "dataset_version": past.dataset_version,
        "index": past.index,
        "catalogue": past.catalogue,
        "features": json.loads(past.features),
        "configuration": past.configuration,
    }
