"""A dataset's snapshots over time: list them, compare them, and restore an earlier one."""

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
from melmill.transforms.side_tables.side_table import list_parts
from melmill.transforms.snapshot.card import past_card, statistics, to_json
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Past, Snapshot, read_history, require_past
from melmill.transforms.snapshot.totals import Totals, ordered_shards, require_consistent
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store

#: Columns of a recording that are compared; the first one is its key.
COMPARED = ["recording_id", "uri", "feature_key", "status", "split", "labels_digest", "rows"]

ADDED, CHANGED, REMOVED = "added", "changed", "removed"


def history(store: Store) -> list[dict[str, Any]]:
    """Return the snapshots that were committed, the latest first."""
    OpenSnapshot.current(store)
    return [_line(store, past) for past in read_history(store)]


def _line(store: Store, past: Past) -> dict[str, Any]:
    snapshot = past.snapshot
    stored = snapshot.statistics
    if not stored and past.kept:
        stored = OpenSnapshot(store, snapshot).statistics
    splits = stored.get("splits", {}).values()
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
    """Return a time in milliseconds since 1970 as ISO 8601 text.

    >>> iso_time(0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat()


@dataclass(frozen=True, slots=True)
class RecordingChange:
    """The difference of a recording between two snapshots.

    Attributes
    ----------
    kind
        The kind of change: ``added``, ``changed`` or ``removed``.
    uri
        The URI of the recording.
    rows_before, rows_after
        The numbers of rows of the recording in the two snapshots.
    """

    kind: str
    uri: str
    rows_before: int
    rows_after: int


def compare(store: Store, before: int, after: int) -> Iterator[RecordingChange]:
    """Yield the recordings that differ between two snapshots; reads a part of both at a time.

    Raises
    ------
    DatasetError
        A snapshot is not kept.
    """
    a, b = (require_past(store, version).snapshot for version in (before, after))
    if a.index != b.index:
        for table_a, table_b in _aligned(store, a, b):
            yield from _compare_parts(table_a, table_b)


def _aligned(store: Store, a: Snapshot, b: Snapshot) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield pairs of tables with the same recordings of two indexes, in the smallest parts."""
    sides = [
        (snapshot.index, snapshot.parts or count_parts(store, snapshot.index))
        for snapshot in (a, b)
    ]
    parts = lcm(*(number for _, number in sides))
    for part in range(parts):
        table_a, table_b = (_read(store, *side, part, parts) for side in sides)
        yield table_a, table_b


def _read(store: Store, index: str, own_parts: int, part: int, parts: int) -> pa.Table:
    """Return part `part` of `parts` of an index that is stored in `own_parts` parts.

    `parts` is a multiple of `own_parts`.
    """
    table = read_part(store, index, "recordings", part % own_parts, COMPARED)
    if own_parts == parts:
        return table
    in_part = [bucket(name, parts) == part for name in table["recording_id"].to_pylist()]
    return table.filter(pa.array(in_part, pa.bool_()))


def _compare_parts(before: pa.Table, after: pa.Table) -> Iterator[RecordingChange]:
    joined = before.join(
        after, "recording_id", join_type="full outer", left_suffix="_a", right_suffix="_b"
    ).sort_by("recording_id")
    for batch in joined.to_batches(4096):
        for row in batch.to_pylist():
            yield from _compare_rows(row)


def _compare_rows(row: dict[str, Any]) -> Iterator[RecordingChange]:
    before, after = ([row[f"{name}_{side}"] for name in COMPARED[1:]] for side in "ab")
    rows = row["rows_a"] or 0, row["rows_b"] or 0
    if row["status_a"] is None:
        yield RecordingChange(ADDED, row["uri_b"], *rows)
    elif row["status_b"] is None:
        yield RecordingChange(REMOVED, row["uri_a"], *rows)
    elif before != after:
        yield RecordingChange(CHANGED, row["uri_b"], *rows)


def count_changes(changes: Iterator[RecordingChange], examples: int = 10) -> dict[str, Any]:
    """Return the numbers of added, changed and removed recordings and rows, with examples."""
    recordings: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    examples_by_kind: dict[str, list[str]] = {}
    for change in changes:
        recordings[change.kind] += 1
        rows[change.kind] += max(change.rows_before, change.rows_after)
        uris = examples_by_kind.setdefault(change.kind, [])
        if len(uris) < examples:
            uris.append(change.uri)
    kinds = (ADDED, CHANGED, REMOVED)
    return {
        "recordings": {kind: recordings[kind] for kind in kinds},
        "rows": {kind: rows[kind] for kind in kinds},
        "examples": examples_by_kind,
    }


def rollback(store: Store, version: int) -> OpenSnapshot:
    """Commit an earlier snapshot's content as a new snapshot, and return the new snapshot.

    Raises
    ------
    DatasetError
        The earlier snapshot is not kept, or a shard of it is missing.
    ConflictError
        Another run committed first.
    """
    opened, past = OpenSnapshot.current(store), OpenSnapshot.past(store, version)
    current = opened.snapshot
    require_shards(store, past.snapshot.index)
    for table in past.snapshot.side_tables:
        list_parts(store, table)
    require_exclusive_commits(store, "staging")
    restored = past.snapshot.index, past.snapshot.side_tables
    if restored == (current.index, current.side_tables):
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
    committed = OpenSnapshot.committed(past)
    committed.write_card()
    return committed


def require_shards(store: Store, index: str) -> None:
    """Raise ``DatasetError`` if a shard of a snapshot is missing; the message names the shard."""
    shards = {shard.parquet.name for shard in ordered_shards(store, index) if shard.parquet}
    folders = {name.partition("/")[0] for name in shards}
    missing = shards - {name for folder in folders for name in store.names(folder)}
    if missing:
        raise DatasetError(f"{store.root}: shard {min(missing)} is missing")
    require_consistent(store, index, shards)


def checkout(store: Store, version: int, output: Path) -> Totals:
    """Write the card and the file list of a kept snapshot to a new folder; return the totals.

    The shards stay in the dataset's folder. ``datasets.load_dataset(output)`` reads them there,
    and ``files.json`` lists them for other programs.

    Raises
    ------
    DatasetError
        The snapshot is not kept, or the folder is not empty.
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
