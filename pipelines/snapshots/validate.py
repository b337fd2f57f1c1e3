"""Validation: read a dataset's files, and compare them with the index, the log and checksums."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import zip_longest
from typing import IO

import numpy as np

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.catalogue.taken_down_list import read_taken_down
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import number_of
from melmill.transforms.duplicates.deciding import read_groups
from melmill.transforms.index.tables import read_index
from melmill.transforms.rows.parquet import read_rows, read_schema
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.rows.tf_example import encode_examples
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.shards.tally import add_rows, held_recordings, is_same
from melmill.transforms.side_tables.keys import keys_of
from melmill.transforms.side_tables.side_table import (
    SideTable,
    list_parts,
    part_faults,
    read_file,
    stored_schema,
)
from melmill.transforms.side_tables.spools import buckets_of
from melmill.transforms.snapshot.delta import open_table, table_files
from melmill.transforms.snapshot.totals import row_differences
from melmill.transforms.store.folders import Store

_SHARDS_IN_FLIGHT = 256


def validate(store: Store, workers: int, report: Callable[[int], None]) -> list[str]:
    """Return the faults of the current snapshot.

    Parameters
    ----------
    store
        The dataset.
    workers
        The number of processes that read shards; 1 for this process only.
    report
        A function that is called with the number of shards read so far.

    Returns
    -------
    list of str
        The faults, each with the name of the file; empty if there are none.
    """
    opened = OpenSnapshot.current(store)
    checks = (
        *(_check_log, _check_recordings, _check_groups, _check_side_files, _check_taken_down),
        _check_side_tables,
    )
    faults = [fault for check in checks for fault in check(opened)]
    check = partial(check_shard, store=store, features=opened.snapshot.features)
    for number, shard_faults in enumerate(_check_shards(check, workers, opened), 1):
        faults += shard_faults
        report(number)
    return faults


def _check_shards(
    check: Callable[[ShardSummary], list[str]], workers: int, opened: OpenSnapshot
) -> Iterator[list[str]]:
    if workers == 1:
        yield from map(check, opened.shards())
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from _map_bounded(pool, check, opened)


def _map_bounded(
    pool: ProcessPoolExecutor,
    check: Callable[[ShardSummary], list[str]],
    opened: OpenSnapshot,
) -> Iterator[list[str]]:
    # The pool's own map would load all shard summaries of the dataset at once.
    waiting = []
    for shard in opened.shards():
        waiting.append(pool.submit(check, shard))
        if len(waiting) >= _SHARDS_IN_FLIGHT:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _check_log(opened: OpenSnapshot) -> Iterator[str]:
    table = open_table(opened.store)
    logged = {name: size for name, size, _ in table_files(table)} if table else {}
    files = (shard.parquet for shard in opened.shards())
    indexed = {file.name: file.size_bytes for file in files if file}
    for name in sorted(logged.keys() - indexed.keys()):
        yield f"{name}: in the Delta log, but not in the index"
    for name in sorted(indexed.keys() - logged.keys()):
        yield f"{name}: in the index, but not in the Delta log"
    for name in sorted(indexed.keys() & logged.keys()):
        if indexed[name] != logged[name]:
            yield f"{name}: {logged[name]} bytes in the Delta log, {indexed[name]} in the index"


def _check_recordings(opened: OpenSnapshot) -> Iterator[str]:
    store, index = opened.store, opened.snapshot.index
    number = Counter(row["status"] for row in read_index(store, index, "recordings", ["status"]))
    failed = number["failed"] + number["partial"]
    yield from (f"index: {difference}" for difference in row_differences(store, index))
    failures = sum(1 for _ in read_index(store, index, "failures", ["recording_id"]))
    # A recording that is damaged and left out has a failure, too.
    if not failed <= failures <= failed + number["deselected"] + number["duplicate"]:
        yield (
            f"index: {failed} recordings failed or are partial, but the failures table has "
            f"{failures} rows"
        )


def _check_groups(opened: OpenSnapshot) -> Iterator[str]:
    """Yield faults of recordings that sound the same: what is kept, and their splits."""
    groups = read_groups(opened.store, opened.snapshot.index)
    if not groups.matches.num_rows and not groups.split_units.num_rows:
        return
    splits = {row["unit"]: row["split"] for row in groups.split_units.to_pylist()}
    kept = {name for name in groups.matched_recordings["duplicate_of"].to_pylist() if name}
    columns = ["recording_id", "uri", "split", "split_unit", "duplicate_of"]
    matched = {
        row[columns[0]]: row for row in groups.matched_recordings.select(columns).to_pylist()
    }
    for row in read_index(opened.store, opened.snapshot.index, "recordings", [*columns, "status"]):
        name, split = row["recording_id"], splits.get(row["split_unit"])
        if row["status"] != "failed" and name in matched:
            for column in (column for column in columns if row[column] != matched[name][column]):
                yield f"index: {name}: matched_recordings has another {column}"
        if name in kept and row["status"] in ("ok", "partial", "failed"):
            kept.remove(name)
        if row["status"] in ("ok", "partial") and split not in (None, row["split"]):
            yield f"index: recording {name} is in {row['split']}, and its duplicates in {split}"
    for name in sorted(kept):
        yield f"index: recording {name} has duplicates that are left out, but is not in the dataset"


def _check_side_files(opened: OpenSnapshot) -> Iterator[str]:
    for name in opened.stale_files():
        yield (
            f"{name}: is missing, or does not describe version {opened.snapshot.version}; the "
            "next refresh writes it again"
        )


def _check_taken_down(opened: OpenSnapshot) -> Iterator[str]:
    try:
        read_taken_down(opened.store, opened.snapshot.taken_down)
    except DatasetError as error:
        yield str(error)


def _check_side_tables(opened: OpenSnapshot) -> Iterator[str]:
    for table in opened.snapshot.side_tables:
        faults = list(part_faults(opened.store, table))
        yield from faults or _check_values(opened.store, table)


def _check_values(store: Store, table: SideTable) -> Iterator[str]:
    """Yield faults of a side table's rows: other columns, or keys in disorder."""
    for number, name in enumerate(list_parts(store, table)):
        rows = read_file(store, name)
        known = stored_schema(table.key, table.columns)
        if any(field not in rows.schema for field in known):
            yield f"{name}: has the columns {rows.schema.names}, not {known.names}"
            continue
        keys = keys_of([rows[column] for column in table.key])
        if not (keys[1:] > keys[:-1]).all():
            yield f"{name}: a key is repeated, or the rows are not sorted by {', '.join(table.key)}"
        if not (buckets_of(rows["recording_id"], table.parts) == number).all():
            yield f"{name}: holds values of recordings that belong to another part"


def check_shard(shard: ShardSummary, *, store: Store, features: str) -> list[str]:
    """Read a shard's files, and return their faults."""
    faults: list[str] = []
    for file, check in ((shard.parquet, _check_parquet), (shard.tfrecord, _check_tfrecord)):
        if file is not None:
            try:
                faults += _check_file(store, file)
                faults += check(store, shard, features)
            except (OSError, ValueError) as error:
                faults.append(f"{file.name}: {error}")
    return faults


def _check_file(store: Store, file: FileEntry) -> Iterator[str]:
    with store.open(file.name) as opened:
        size, checksum = _digest(opened)
    if size != file.size_bytes:
        yield f"{file.name}: has {size} bytes, but {file.size_bytes} were written"
    elif checksum != file.sha256:
        yield f"{file.name}: has SHA-256 {checksum}, but {file.sha256} was written"


def _digest(file: IO[bytes]) -> tuple[int, str]:
    size, checksum = 0, hashlib.sha256()
    while block := file.read(1 << 20):
        size += len(block)
        checksum.update(block)
    return size, checksum.hexdigest()


def _check_parquet(store: Store, shard: ShardSummary, features: str) -> Iterator[str]:
    name = shard.parquet.name if shard.parquet else ""
    with store.open(name) as file:
        schema, metadata = read_schema(file)
    if metadata.get("melmill.features") != features:
        yield f"{name}: its feature configuration differs from the snapshot's"
    rows = 0
    stored: dict[str, RecordingRows] = {}
    with store.open(name) as file:
        for batch in read_rows(file):
            for feature, values in batch.features.items():
                # NaN of a single number stands for null, which a measure may be.
                bad = np.isinf(values) if values.ndim == 1 else ~np.isfinite(values)
                if bad.any():
                    numbers = f"{rows} to {rows + batch.rows - 1}"
                    yield f"{name}: {feature} is not finite in rows {numbers}"
            rows += batch.rows
            for part in held_recordings(batch, with_variants=schema.with_variants):
                known = stored.get(part.recording_id)
                stored[part.recording_id] = add_rows(known, part) if known else part
    if rows != shard.rows:
        yield f"{name}: has {number_of(rows, 'row')}, but {shard.rows:,} were written"
    indexed = {entry.recording_id: entry for entry in shard.recordings}
    for recording_id in sorted(indexed.keys() | stored.keys()):
        if not is_same(stored.get(recording_id), indexed.get(recording_id)):
            yield (
                f"{name}: holds {_rows(stored.get(recording_id))} of recording {recording_id}, "
                f"but the index lists {_rows(indexed.get(recording_id))}"
            )


def _rows(entry: RecordingRows | None) -> str:
    return (
        "no rows"
        if entry is None
        else f"{number_of(entry.rows, 'row')} ({entry.digest or 'no digest'})"
    )


def _check_tfrecord(store: Store, shard: ShardSummary, features: str) -> Iterator[str]:
    name = shard.tfrecord.name if shard.tfrecord else ""
    parquet = shard.parquet.name if shard.parquet else ""
    with store.open(parquet) as file, store.open(name) as twin:
        schema, _ = read_schema(file)
        batches = read_rows(file)
        rows = (row for batch in batches for row in encode_examples(batch, schema))
        for number, (row, record) in enumerate(zip_longest(rows, read_records(twin))):
            if row is None or record is None:
                yield f"{name}: its number of rows differs from {parquet}"
                return
            if row != record:
                yield f"{name}: record {number} differs from row {number} of {parquet}"
                return
