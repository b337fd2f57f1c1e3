"""Add columns to a dataset's current snapshot: labels, scores, tokens; no feature is rewritten."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from melmill.pipelines.commit import begin, discard, discarding_the_overtaken, tidy_up_after
from melmill.pipelines.snapshots.additions import (
    Addition,
    check_names,
    key_of,
    open_table,
    roots_of,
    size_of,
    table_to_update,
)
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.side_tables.coverage import Coverage, coverage
from melmill.transforms.side_tables.matching import Matched, Target, count_buckets, match_values
from melmill.transforms.side_tables.side_table import (
    SideTable,
    chunks_digest,
    content_of_part,
    file_digests,
    list_parts,
    publish_parts,
    write_part_files,
)
from melmill.transforms.side_tables.user_tables import UserTable
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class ColumnsResult:
    """The result of adding or dropping columns.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    committed
        Whether this run committed the snapshot; otherwise it has the same values already.
    columns
        The types of the columns that were added, by name.
    coverage
        How many recordings have values in each of these columns.
    ignored
        The number of rows of the table that belong to nothing in the dataset.
    dropped
        The names of the columns that were dropped.
    """

    snapshot: Snapshot
    committed: bool
    columns: Mapping[str, str] = field(default_factory=dict)
    coverage: tuple[Coverage, ...] = ()
    ignored: int = 0
    dropped: tuple[str, ...] = ()


def add_columns(store: Store, addition: Addition, *, single_writer: bool = False) -> ColumnsResult:
    """Commit the columns of a table as a side table of the current snapshot.

    Everything is checked before anything is written to the dataset. The table is read in blocks
    and spooled to the local disk; about 64 MB of it are in memory at a time.

    Parameters
    ----------
    store
        The dataset.
    addition
        The table, and how it is joined.
    single_writer
        Whether the user guarantees that no other run writes to the dataset at the same time.

    Raises
    ------
    CatalogueError
        The table cannot be read, or has wrong types, or unknown or repeated keys.
    DatasetError
        There is no dataset, or it has one of the columns already.
    ConflictError
        Another run committed first; nothing was added.
    """
    opened = OpenSnapshot.whole(store)
    key = key_of(opened, addition.on)
    table = open_table(addition, key)
    previous = check_names(opened, table, addition)
    updated = table_to_update(previous, table, key, addition)
    target = Target(opened.known_recordings, key, roots_of(opened), previous=updated)
    matched = Matched()
    with tempfile.TemporaryDirectory(prefix="melmill-columns-") as folder:
        buckets = count_buckets(size_of(addition), opened.parts)
        parts = match_values(table, target, matched, buckets, Path(folder))
        paths = write_part_files(Path(folder), parts)
        matched.check(addition.table, addition.ignore_unknown)
        if any(_has_values(store, known, table, key, paths) for known in previous):
            opened.mend_side_files()
            snapshot = opened.snapshot
        else:
            snapshot = _commit_parts(opened, paths, key, table, single_writer)
    counted = coverage(opened.known_recordings, snapshot.side_tables, names=[*table.columns])
    committed, ignored = snapshot is not opened.snapshot, matched.unknown.number
    return ColumnsResult(snapshot, committed, table.columns, tuple(counted), ignored)


def _commit_parts(
    opened: OpenSnapshot,
    paths: Sequence[Path],
    key: tuple[str, ...],
    table: UserTable,
    single_writer: bool,
) -> Snapshot:
    """Commit local files as a side table; return the new snapshot."""
    others = _without(opened.snapshot.side_tables, [*table.columns])
    chunks = chunks_digest(opened.snapshot.features) if len(key) > 1 else ""

    def write(job: ExtractJob) -> list[SideTable]:
        return [*others, publish_parts(job, paths, key, table.columns, chunks)]

    operation = " ".join(["add-columns", *file_digests(paths), *table.columns])
    return _commit(opened, operation, write, single_writer)


def drop_columns(
    store: Store, names: Sequence[str], *, single_writer: bool = False
) -> ColumnsResult:
    """Commit the current snapshot without some of its added columns.

    Earlier versions keep them, until ``gc`` removes these versions.

    Raises
    ------
    DatasetError
        There is no dataset, or it has no added column of a name.
    ConflictError
        Another run committed first; nothing was dropped.
    """
    opened = OpenSnapshot.whole(store)
    known = [name for table in opened.snapshot.side_tables for name in table.columns]
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(known) or "none"
        raise DatasetError(
            f"--drop {unknown[0]}: {store.root} has no added column of this name; it has: {listed}"
        )
    tables = _without(opened.snapshot.side_tables, names)
    operation = " ".join(["drop-columns", *names])
    snapshot = _commit(opened, operation, lambda job: tables, single_writer)
    return ColumnsResult(snapshot, True, dropped=tuple(names))


def _has_values(
    store: Store,
    known: SideTable,
    table: UserTable,
    key: tuple[str, ...],
    paths: Sequence[Path],
) -> bool:
    """Return whether a side table has the same values already."""
    if known.key != key or dict(known.columns) != dict(table.columns):
        return False
    return [content_of_part(name) for name in list_parts(store, known)] == file_digests(paths)


def _without(tables: Sequence[SideTable], names: Sequence[str]) -> list[SideTable]:
    """Return the side tables without some columns; those that have no other are left out."""
    return [kept for table in tables if (kept := table.without(names)).labels]


def _commit(
    opened: OpenSnapshot,
    operation: str,
    write: Callable[[ExtractJob], Sequence[SideTable]],
    single_writer: bool,
) -> Snapshot:
    """Commit the current snapshot with other side tables, which `write` returns."""
    current = opened.snapshot
    job = begin(opened.job_without_rows(operation))
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    opened.mend_side_files()
    tidy_up_after(job.store, current)
    with discarding_the_overtaken(job, opened):
        snapshot = replace(
            current,
            operation="add-columns",
            replaced={},
            run=job.attempt,
            side_tables=tuple(write(job)),
        )
        commit(job.store, snapshot, opened.schema.table())
    committed = OpenSnapshot.committed(opened)
    committed.write_card()
    discard(job)
    return committed.snapshot
