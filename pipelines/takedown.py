"""Erases recordings: from the current snapshot, from every kept one before it, and from whatever
runs left behind.
"""

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
from melmill.transforms.catalogue.taken_down import (
    TakenDown,
    read_taken_down,
    taken_down_name,
    write_taken_down,
)
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.index.tables import read_shards
from melmill.transforms.plan.comparing import Dropped, Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.shards.receipts import announce_file
from melmill.transforms.shards.rewriting import rewrite_shard
from melmill.transforms.snapshot.delta import (
    Past,
    Snapshot,
    commit,
    index_names,
    read_history,
)
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from melmill.transforms.views.export_records import ExportRecord, read_export_records
from melmill.transforms.write_index import write_index


@dataclass(frozen=True, slots=True)
class Takedown:
    """What was erased.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    erased
        The recordings that this takedown put on the list.
    versions
        Kept snapshots that held some of them, and hold them no more.
    rows
        Their rows in the snapshot that was current.
    files
        Names of the files that were removed.
    exports
        Exports that may hold some of them: no takedown reaches those.
    """

    snapshot: Snapshot
    erased: tuple[TakenDown, ...]
    versions: list[int]
    rows: int
    files: list[str]
    exports: tuple[ExportRecord, ...] = ()


def takedown(
    store: Store,
    names: Sequence[str],
    *,
    single_writer: bool = False,
    report: Callable[[int], None] = lambda number: None,
) -> Takedown:
    """Erase recordings from every kept snapshot, and record it; they do not come back.

    Their rows and what the indexes say of them are removed from the store: shards that held
    some are written anew without them, for the current snapshot by a commit; those of earlier
    snapshots take the place of the old ones in ``history``, ``checkout``, ``rollback`` and
    ``diff``. What other readers of Delta tables see of the versions before, by time travel, ends
    where they would need an erased file. Interrupted, the same call goes on.

    Parameters
    ----------
    store
        The dataset.
    names
        What :func:`~melmill.pipelines.snapshots.finding.find_recordings` takes; each stands for the
        whole object, with all its segments and, where contents are known, all its copies.
    single_writer
        Whether the user warrants that no other run writes there meanwhile.
    report
        Called with the number of indexes written anew so far.

    Raises
    ------
    DatasetError
        The dataset knows no such recording.
    ConflictError
        Another run committed meanwhile; nothing was erased.
    """
    opened = OpenSnapshot.whole(store)
    current = opened.snapshot
    every = read_history(store)
    history = [past for past in every if past.kept]
    before = read_taken_down(store, current.taken_down)
    found = find_recordings(store, history, names, before)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {(one.recording_id, one.uri, one.content) for one in before}
    erased = tuple(
        TakenDown(one.recording_id, one.uri, now, one.content)
        for one in sorted(found.entries, key=repr)
        if (one.recording_id, one.uri, one.content) not in known
    )
    exports = tuple(_exports_holding(store, every, found))
    concerned = [past for past in history if found.held[past.snapshot.index].entries]
    if erased or concerned:
        listed = [*before, *erased]
        committed = _commit(opened, history, found, listed, single_writer, report)
    else:
        # An earlier takedown may have been interrupted when it had committed.
        opened.mend_side_files()
        committed = current
    files = erase_leftovers(store, read_left_out(store, committed.taken_down).taken_down)
    redact_records(store, [one.uri for one in (*before, *erased)])
    versions = sorted(past.snapshot.version for past in concerned)
    rows = found.held[current.index].rows
    return Takedown(committed, erased, versions, rows, files, exports)


def _commit(
    opened: OpenSnapshot,
    history: Sequence[Past],
    found: Found,
    listed: Sequence[TakenDown],
    single_writer: bool,
    report: Callable[[int], None],
) -> Snapshot:
    """Write anew what holds the recordings, and commit it with the new list."""
    store, current = opened.store, opened.snapshot
    job = begin(opened.job("takedown"))
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    jobs = {job.staging: job}
    with discarding_the_overtaken(job, opened, jobs.values()):
        replaced: dict[str, str] = {}
        for snapshot in {p.snapshot.index: p.snapshot for p in reversed(history)}.values():
            if found.held[snapshot.index].entries:
                report(len(replaced))
                held = found.held[snapshot.index]
                past = OpenSnapshot(store, snapshot)
                replaced[snapshot.index] = _without(past, opened, held, jobs)
        announce_file(job, taken_down_name(listed))
        index = replaced.get(current.index, current.index)
        snapshot = replace(
            current,
            index=index,
            operation="takedown",
            statistics=OpenSnapshot(store, replace(current, index=index)).statistics,
            taken_down=write_taken_down(job.store, listed),
            replaced=replaced,
            run=job.attempt,
        )
        commit(store, snapshot, job.schema.table())
    committed = OpenSnapshot.current(store)
    committed.write_card()
    for one in jobs.values():
        discard(one)
    return committed.snapshot


def _without(
    past: OpenSnapshot, current: OpenSnapshot, held: Held, jobs: dict[str, ExtractJob]
) -> str:
    """Write a snapshot's index anew, and the shards that are concerned; give the index's name.

    A snapshot of an extractor that is no more cannot be written anew: it is no longer kept, for
    which ``""`` stands.
    """
    if not _can_be_written(past):
        return ""
    # Its shards are named after the current snapshot.
    job = in_its_staging(replace(past.job("takedown"), base=current.base()))
    job = jobs.setdefault(job.staging, job)
    facts: list[Any] = [Dropped(name) for name in sorted({e.recording_id for e in held.entries})]
    for summary in read_shards(past.store, past.snapshot.index):
        if gone := held.shards.get(summary.name):
            touched = [Touched(summary.name, recording_id) for recording_id in sorted(gone)]
            facts += rewrite_shard(summary, touched, job)
    return write_index(facts, job, past.base())


def _can_be_written(past: OpenSnapshot) -> bool:
    try:
        return past.has_own_features()
    except ConfigError:
        return False


def _exports_holding(
    store: Store, history: Collection[Past], found: Found
) -> Iterable[ExportRecord]:
    """Name the exports of snapshots that hold some recordings, or of which nobody knows."""
    kept = {past.snapshot.index for past in history if past.kept}
    unknown = index_names(history) - kept
    for record in read_export_records(store):
        held = found.held.get(record.index)
        if record.index in unknown or (held and held.entries):
            yield record
