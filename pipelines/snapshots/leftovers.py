"""Files of a dataset that no snapshot needs and that hold recordings which were taken down.

Interrupted and overtaken runs leave shards, twins, indexes and working files. A run that began
before the latest commit can never commit itself, so all that it made may go at once; of any
other file, its own rows tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator

import pyarrow.parquet as pq

from melmill.pipelines.snapshots.gc import remove_all
from melmill.transforms.catalogue.left_out import canonical_uri, content_of, names_of_uri
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import read_index
from melmill.transforms.rows.tf_example import Values, parse_example
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.shards.receipts import read_made
from melmill.transforms.snapshot.delta import read_history
from melmill.transforms.snapshot.garbage import Needed, in_order_of_removal, list_own, needed
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import index_of, run_of, shard_of

_RECORD = re.compile(r"runs/[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[a-z]+\.json")
_ERASED = "(taken down)"

#: Names, URIs and contents of recordings; see
#: :class:`~melmill.transforms.catalogue.left_out.LeftOut`.
Names = Collection[str]

#: Working files that name no recording, and that a run needs to tidy up after itself.
_TIDYING = re.compile(r"staging/[^/]+/(?:made|attempts)/.*|staging/[^/]+/started")


def erase_leftovers(store: Store, names: Names) -> list[str]:
    """Remove every file that no kept snapshot needs and that holds one of the recordings.

    Called again after it was interrupted, it goes on. Gives the names of the files.
    """
    history = read_history(store)
    need = needed(store, [past for past in history if past.kept])
    own = [file.name for file in list_own(store)]
    there = {*own, *map(index_of, own)}
    runs = sorted({run for name in own if (run := run_of(name))})
    over = [run for run in runs if _began_ms(store, run) <= history[0].committed_ms]
    made: set[str] = set()
    working: set[str] = set()
    for run in over:
        named = _announced(store, run)
        made |= named
        # What is announced and not there yet may come: the run must be able to tidy it up.
        ended = named <= there
        working |= {n for n in own if run_of(n) == run and (ended or not _TIDYING.fullmatch(n))}
    replaced = {name for past in history for name in past.snapshot.replaced}
    gone = working | {name for name in own if name in made or index_of(name) in made | replaced}
    gone |= set(_holding(store, set(own) - gone, need, names))
    # A list of what was taken down is no working file of the run that wrote it.
    gone = {name for name in gone if not need.has(name)}
    remove_all(store, in_order_of_removal(gone))
    return sorted(gone)


def _began_ms(store: Store, run: str) -> int:
    """When a run began; 0 for one that only planned."""
    try:
        return int(store.read(f"staging/{run}/started"))
    except FileNotFoundError:
        return 0


def _announced(store: Store, run: str) -> set[str]:
    """Name the files and indexes that a run announced."""
    announced = list(read_made(store, f"staging/{run}"))
    names = {name for made in announced for name in (*made.files, made.index)}
    return names - {""}


def _holding(store: Store, files: Collection[str], need: Needed, names: Names) -> Iterator[str]:
    """Find the shards and indexes that hold one of the recordings, or that nobody can read."""
    shards = sorted(name for name in files if shard_of(name) and not need.has(name))
    found = {shard_of(name) for name in telling(shards) if shard_holds(store, name, names)}
    yield from (name for name in shards if shard_of(name) in found)
    for index in sorted({index_of(name) for name in files} - need.indexes - {""}):
        if _index_holds(store, index, names):
            yield from (name for name in files if index_of(name) == index)


def telling(files: Collection[str]) -> list[str]:
    """Choose one file of each shard to be read: the Parquet file, or a twin that is alone."""
    chosen: dict[tuple[str, str], str] = {}
    # "split=…" stands before "tfrecord/…".
    for name in sorted(files):
        if shard := shard_of(name):
            chosen.setdefault(shard, name)
    return sorted(chosen.values())


def shard_holds(store: Store, name: str, names: Names) -> bool:
    """Tell whether a shard's file holds one of the recordings; of damage nobody can tell."""
    try:
        return any(_is_among(*one, names) for one in recordings_in(store, name))
    except DatasetError:
        return True


def _is_among(recording_id: str, uri: str, names: Names) -> bool:
    return recording_id in names or any(name in names for name in names_of_uri(uri))


def recordings_in(store: Store, name: str) -> set[tuple[str, str]]:
    """Read which recordings a shard's file holds, by name and URI.

    Raises
    ------
    DatasetError
        The file is damaged, or has gone.
    """
    with store.reading_shard(name) as file:
        if name.endswith(".tfrecord"):
            return {_named(parse_example(record)) for record in read_records(file)}
        table = pq.ParquetFile(file).read(["recording_id", "uri"])
        if table.num_columns < 2:
            return set()  # somebody else's file, under a name like ours
        columns = (table[column].to_pylist() for column in ("recording_id", "uri"))
        return set(zip(*columns, strict=True))


def _named(example: dict[str, Values]) -> tuple[str, str]:
    recording_id, uri = (bytes(example[name][0]).decode() for name in ("recording_id", "uri"))
    return recording_id, uri


def _index_holds(store: Store, index: str, names: Names) -> bool:
    try:
        for row in read_index(store, index, "recordings", ["recording_id", "uri", "content_hash"]):
            content = content_of(row["content_hash"] or "")
            if content in names or _is_among(row["recording_id"], row["uri"], names):
                return True
    except (OSError, ValueError):
        return True  # damaged, and no snapshot needs it
    return False


def redact_records(store: Store, uris: Iterable[str]) -> list[str]:
    """Take URIs out of the records of runs; gives the names of those that were rewritten."""
    forms = {form for uri in uris for form in (uri, canonical_uri(uri))}
    said = sorted({json.dumps(form)[1:-1] for form in forms} | forms, key=len, reverse=True)
    rewritten = []
    for name in sorted(store.names("runs")):
        if _RECORD.fullmatch(name):
            before = store.read(name).decode()
            text = before
            for one in said:
                if one in text:
                    text = text.replace(one, _ERASED)
            if text != before:
                store.put(name, text.encode())
                rewritten.append(name)
    return rewritten
