"""Find and erase leftover files that hold recordings which were taken down.

Interrupted and overtaken runs leave shards, twins, indexes and working files that no snapshot
needs. A run that began before the latest commit can never commit, so all its files are removed.
Every other leftover file is read, to see whether it holds one of the recordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator

from melmill.pipelines.snapshots.gc import remove_all
from melmill.transforms.catalogue.left_out import canonical_uri, content_of, names_of_uri
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import read_index
from melmill.transforms.rows.tf_example import Values, parse_example
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.shards.receipts import read_made
from melmill.transforms.side_tables.side_table import read_file
from melmill.transforms.snapshot.delta import read_history
from melmill.transforms.snapshot.needed_files import Needed, in_order_of_removal, list_own, needed
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import index_of, run_of, shard_of, side_table_of
from melmill.transforms.store.parquet_files import ParquetFile

_RECORD = re.compile(r"runs/[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[a-z]+\.json")
_ERASED = "(taken down)"

#: Names, URIs and contents of recordings; see
#: :class:`~melmill.transforms.catalogue.left_out.LeftOut`.
Names = Collection[str]

#: Working files that name no recording, and that a run needs to clean up its own files.
_CLEANUP = re.compile(r"staging/[^/]+/(?:made|attempts)/.*|staging/[^/]+/started")


def erase_leftovers(store: Store, names: Names) -> list[str]:
    """Remove the files that hold one of the recordings and that no kept snapshot needs.

    If the call is interrupted, call it again to continue. Returns the names of the removed files.
    """
    history = read_history(store)
    need = needed(store, [past for past in history if past.kept])
    own = [file.name for file in list_own(store)]
    present = {*own, *map(index_of, own)}
    runs = sorted({run for name in own if (run := run_of(name))})
    overtaken = [run for run in runs if _began_ms(store, run) <= history[0].committed_ms]
    run_files: set[str] = set()
    working: set[str] = set()
    for run in overtaken:
        announced = _announced(store, run)
        run_files |= announced
        # The run may still write an announced file, and must then be able to clean it up.
        ended = announced <= present
        working |= {n for n in own if run_of(n) == run and (ended or not _CLEANUP.fullmatch(n))}
    replaced = {name for past in history for name in past.snapshot.replaced}
    obsolete = run_files | replaced
    erased = working | {
        name
        for name in own
        if name in run_files or index_of(name) in obsolete or side_table_of(name) in obsolete
    }
    erased |= set(_holding(store, set(own) - erased, need, names))
    # The list of taken-down recordings is needed, although an overtaken run may have written it.
    erased = {name for name in erased if not need.has(name)}
    remove_all(store, in_order_of_removal(erased))
    return sorted(erased)


def _began_ms(store: Store, run: str) -> int:
    """Return the time when a run began; 0 for a run that only planned."""
    try:
        return int(store.read(f"staging/{run}/started"))
    except FileNotFoundError:
        return 0


def _announced(store: Store, run: str) -> set[str]:
    """Return the names of the files and indexes that a run announced."""
    announced = list(read_made(store, f"staging/{run}"))
    names = {name for made in announced for name in (*made.files, made.index)}
    return names - {""}


def _holding(store: Store, files: Collection[str], need: Needed, names: Names) -> Iterator[str]:
    """Yield the files that hold a recording or that cannot be read.

    They are files of shards, side tables and indexes.
    """
    files_of_shards = sorted(name for name in files if shard_of(name) and not need.has(name))
    files_to_read = telling(files_of_shards)
    shards = {shard_of(name) for name in files_to_read if shard_holds(store, name, names)}
    yield from (name for name in files_of_shards if shard_of(name) in shards)
    for name in files:
        if side_table_of(name) and not need.has(name) and _values_hold(store, name, names):
            yield name
    for index in sorted({index_of(name) for name in files} - need.indexes - {""}):
        if _index_holds(store, index, names):
            yield from (name for name in files if index_of(name) == index)


def _values_hold(store: Store, name: str, names: Names) -> bool:
    """Return whether a side table's file holds one of the recordings; also if it is damaged."""
    try:
        rows = read_file(store, name, ["recording_id", "uri"])
    except DatasetError:
        return True
    distinct = rows.group_by(["recording_id", "uri"]).aggregate([]).to_pylist()
    return any(_matches(row["recording_id"], row["uri"], names) for row in distinct)


def telling(files: Collection[str]) -> list[str]:
    """Return a file to read for each shard: the Parquet file, or else the TFRecord file."""
    chosen: dict[tuple[str, str], str] = {}
    # In sorted order, "split=…" comes before "tfrecord/…".
    for name in sorted(files):
        if shard := shard_of(name):
            chosen.setdefault(shard, name)
    return sorted(chosen.values())


def shard_holds(store: Store, name: str, names: Names) -> bool:
    """Return whether a shard's file holds one of the recordings; also true if it is damaged."""
    try:
        return any(_matches(*recording, names) for recording in recordings_in(store, name))
    except DatasetError:
        return True


def _matches(recording_id: str, uri: str, names: Names) -> bool:
    return recording_id in names or any(name in names for name in names_of_uri(uri))


def recordings_in(store: Store, name: str) -> set[tuple[str, str]]:
    """Return the recordings in a shard's file, as pairs of recording ID and URI.

    Raises
    ------
    DatasetError
        The file is damaged or missing.
    """
    with store.reading_shard(name) as file:
        if name.endswith(".tfrecord"):
            return {_id_and_uri(parse_example(record)) for record in read_records(file)}
        table = ParquetFile(file).read(["recording_id", "uri"])
        if table.num_columns < 2:
            return set()  # not melmill's file, but its name looks like a shard's
        columns = (table[column].to_pylist() for column in ("recording_id", "uri"))
        return set(zip(*columns, strict=True))


def _id_and_uri(example: dict[str, Values]) -> tuple[str, str]:
    recording_id, uri = (bytes(example[name][0]).decode() for name in ("recording_id", "uri"))
    return recording_id, uri


def _index_holds(store: Store, index: str, names: Names) -> bool:
    """Return whether an index names one of the recordings; also true if it is damaged.

    A ``gc`` that was killed may have left any of its tables.
    """
    tables = {
        "recordings": ["recording_id", "uri", "content_hash", "duplicate_of"],
        "failures": ["recording_id", "uri"],
        "matches": ["first", "second"],
        "matched_recordings": ["recording_id", "uri"],
    }
    try:
        return any(
            content_of(row.get("content_hash") or "") in names
            or any(
                _matches(row[column], row.get("uri") or "", names)
                for column in ("recording_id", "duplicate_of", "first", "second")
                if row.get(column)
            )
            for table, columns in tables.items()
            for row in read_index(store, index, table, columns)
        )
    except (OSError, ValueError):
        return True  # no snapshot needs it


def redact_records(store: Store, uris: Iterable[str]) -> list[str]:
    """Replace URIs in the records of runs; return the names of the rewritten records."""
    forms = {form for uri in uris for form in (uri, canonical_uri(uri))}
    texts = sorted({json.dumps(form)[1:-1] for form in forms} | forms, key=len, reverse=True)
    rewritten = []
    for name in sorted(store.names("runs")):
        if _RECORD.fullmatch(name):
            before = store.read(name).decode()
            redacted = before
            for text in texts:
                redacted = redacted.replace(text, _ERASED)
            if redacted != before:
                store.put(name, redacted.encode())
                rewritten.append(name)
    return rewritten
