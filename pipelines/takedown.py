"""The takedown: erase recordings from all kept snapshots and from files that runs left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from melmill.pipelines.commit import begin, discard, discarding_the_overtaken
from melmill.pipelines.snapshots.finding import Found, Held, find_recordings
from melmill.pipelines.snapshots.leftovers import erase_leftovers, redact_records
from melmill.pipelines.snapshots.open import OpenSnapshot, in_its_staging
from melmill.transforms.catalogue.left_out import read_left_out
from melmill.transforms.catalogue.taken_down_list import (
    TakenDown,
    read_taken_down,
    taken_down_name,
    write_taken_down,
)
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.duplicates.deciding import copies_of
from melmill.transforms.index.tables import read_shards
from melmill.transforms.plan.change_records import Dropped, Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.shards.receipts import announce_file
from melmill.transforms.shards.rewriting import rewrite_shard
from melmill.transforms.side_tables.erasing import without_recordings
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Past, Snapshot, index_names, read_history
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from melmill.transforms.views.written_exports import ExportRecord, read_export_records
from melmill.transforms.write_index import write_index


@dataclass(frozen=True, slots=True)
class Takedown:
    """The result of a takedown.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    erased
        The recordings that this takedown added to the list of taken-down recordings.
    versions
        The versions of kept snapshots that the recordings were erased from.
    rows
        The number of the recordings' rows in the snapshot that was current.
    files
        The names of the files that were removed.
    exports
        The exports that may hold some of the recordings; a takedown does not change exports.
    copies
        The URIs of recordings that sound the same and are not taken down, if the index knows them.
    """

    snapshot: Snapshot
    erased: tuple[TakenDown, ...]
    versions: list[int]
    rows: int
    files: list[str]
    exports: tuple[ExportRecord, ...] = ()
    copies: tuple[str, ...] = ()


def takedown(
    store: Store,
    names: Sequence[str],
    *,
    single_writer: bool = False,
    report: Callable[[int], None] = lambda number: None,
) -> Takedown:
    """Erase recordings from every kept snapshot, so that no refresh brings them back.

    The takedown removes the recordings' rows, and their entries in the indexes. It rewrites the
    shards that held the recordings. The rewritten shards of the current snapshot are committed.
    The rewritten shards of earlier snapshots replace the old ones in ``history``, ``checkout``,
    ``rollback`` and ``diff``. Other readers of Delta tables can still travel to earlier versions,
    but fail if they need an erased file. If the call is interrupted, call it again to continue.

    Parameters
    ----------
    store
        The dataset.
    names
        The names of the recordings, as :func:`~melmill.pipelines.snapshots.finding.find_recordings`
        accepts them. Each name stands for the whole object, with all its segments and, if
        contents are known, all its copies.
    single_writer
        Whether the user guarantees that no other run writes to the dataset at the same time.
    report
        A function that is called with the number of indexes rewritten so far.

    Raises
    ------
    DatasetError
        The dataset has no such recording.
    ConflictError
        Another run committed first; nothing was erased.
    """
    opened = OpenSnapshot.whole(store)
    current = opened.snapshot
    full_history = read_history(store)
    history = [past for past in full_history if past.kept]
    before = read_taken_down(store, current.taken_down)
    matches = find_recordings(store, history, names, before)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {(taken.recording_id, taken.uri, taken.content) for taken in before}
    erased = tuple(
        TakenDown(entry.recording_id, entry.uri, now, entry.content)
        for entry in sorted(matches.entries, key=repr)
        if (entry.recording_id, entry.uri, entry.content) not in known
    )
    exports = tuple(_exports_holding(store, full_history, matches))
    copies = tuple(copies_of(store, current.index, {taken.recording_id for taken in erased}))
    affected = [past for past in history if _holds(past.snapshot, matches)]
    if erased or affected:
        listed = [*before, *erased]
        committed = _commit(opened, history, matches, listed, single_writer, report)
    else:
        # An earlier takedown may have been interrupted after its commit: finish it.
        opened.mend_side_files()
        committed = current
    files = erase_leftovers(store, read_left_out(store, committed.taken_down).taken_down)
    redact_records(store, [taken.uri for taken in (*before, *erased)])
    versions = sorted(past.snapshot.version for past in affected)
    rows = matches.held[current.index].rows
    return Takedown(committed, erased, versions, rows, files, exports, copies)


def _commit(
    opened: OpenSnapshot,
    history: Sequence[Past],
    matches: Found,
    listed: Sequence[TakenDown],
    single_writer: bool,
    report: Callable[[int], None],
) -> Snapshot:
    """Rewrite the indexes and shards that hold the recordings, and commit them with the list."""
    store, current = opened.store, opened.snapshot
    job = begin(opened.job("takedown"))
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    jobs = {job.staging: job}
    with discarding_the_overtaken(job, opened, jobs.values()):
        replaced: dict[str, str] = {}
        for snapshot in {p.snapshot.index: p.snapshot for p in reversed(history)}.values():
            match = matches.held[snapshot.index]
            if match.entries:
                report(len(replaced))
                past = OpenSnapshot(store, snapshot)
                replaced[snapshot.index] = _rewrite_without(past, opened, match, jobs)
        replaced |= _erase_values(job, history, matches)
        announce_file(job, taken_down_name(listed))
        index = replaced.get(current.index, current.index)
        tables = [replace(t, name=replaced.get(t.name, t.name)) for t in current.side_tables]
        rewritten = OpenSnapshot(store, replace(current, index=index, side_tables=tuple(tables)))
        snapshot = replace(
            rewritten.snapshot,
            operation="takedown",
            statistics=rewritten.statistics,
            taken_down=write_taken_down(job.store, listed),
            replaced=replaced,
            run=job.attempt,
        )
        commit(store, snapshot, job.schema.table())
    committed = OpenSnapshot.committed(rewritten)
    committed.write_card()
    for rewrite_job in jobs.values():
        discard(rewrite_job)
    return committed.snapshot


def _rewrite_without(
    past: OpenSnapshot, current: OpenSnapshot, match: Held, jobs: dict[str, ExtractJob]
) -> str:
    """Rewrite a snapshot's index and shards without the recordings; return the index's name.

    Return ``""`` if another version of the extractor made the snapshot: it cannot be rewritten,
    and is no longer kept.
    """
    if not _can_be_rewritten(past):
        return ""
    # The names of the new shards depend on the current snapshot.
    job = in_its_staging(replace(past.job("takedown"), base=current.base()))
    job = jobs.setdefault(job.staging, job)
    facts: list[Any] = [Dropped(name) for name in sorted({e.recording_id for e in match.entries})]
    for summary in read_shards(past.store, past.snapshot.index):
        if erased := match.shards.get(summary.name):
            touched = [Touched(summary.name, recording_id) for recording_id in sorted(erased)]
            facts += rewrite_shard(summary, touched, job)
    return write_index(facts, job, past.base())


def _holds(snapshot: Snapshot, matches: Found) -> bool:
    """Return whether a snapshot's index or one of its side tables holds one of the recordings."""
    tables = {table.name for table in snapshot.side_tables}
    return bool(matches.held[snapshot.index].entries or tables & matches.side_tables)


def _erase_values(job: ExtractJob, history: Sequence[Past], matches: Found) -> dict[str, str]:
    """Write the side tables of all kept snapshots again without the recordings' values.

    Returns the new name of each side table that held such values.
    """
    names = {entry.recording_id for entry in matches.entries}
    tables = {table.name: table for past in history for table in past.snapshot.side_tables}
    return {
        name: without_recordings(job, tables[name], names).name
        for name in sorted(matches.side_tables)
    }


def _can_be_rewritten(past: OpenSnapshot) -> bool:
    try:
        return past.has_own_features()
    except ConfigError:
        return False


def _exports_holding(
    store: Store, history: Collection[Past], matches: Found
) -> Iterable[ExportRecord]:
    """Yield the exports of snapshots that hold a recording, or that are no longer kept."""
    kept = {past.snapshot.index for past in history if past.kept}
    unknown = index_names(history) - kept
    for record in read_export_records(store):
        match = matches.held.get(record.index)
        if record.index in unknown or (match and match.entries):
            yield record
