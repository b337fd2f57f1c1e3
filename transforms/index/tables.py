"""The index of a snapshot: tables of its recordings, failures and shards.

The parts of the tables are Parquet files in ``index/DIGEST/``, where ``DIGEST`` depends on their
content. An index never changes, and a snapshot names its index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Failure, MeasuredPart, Recording
from melmill.transforms.index.results import Held
from melmill.transforms.measures.readings import measures_type
from melmill.transforms.measures.states import read_all
from melmill.transforms.plan.known_rows import labels_digest
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.rows_digest import combine_digests, digest_text
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.store.folders import Store
from melmill.transforms.store.parquet_files import ParquetFile

#: Number of recordings in a part of an index, or up to twice as many: one worker holds a part in
#: memory. With fingerprints, which have up to 96 kB, they are fewer; waveforms have up to 32 kB.
RECORDINGS_PER_PART, _FINGERPRINTS_PER_PART = 50_000, 2_500

_ROWS_PER_READ = 4096

RECORDINGS = pa.schema(
    {
        "recording_id": pa.string(),
        "uri": pa.string(),
        "fingerprint": pa.string(),
        "content_hash": pa.string(),
        "feature_key": pa.string(),
        "status": pa.string(),
        "split": pa.string(),
        "labels_digest": pa.string(),
        "container": pa.string(),
        "codec": pa.string(),
        "decoder": pa.string(),
        "size_bytes": pa.int64(),
        "sample_rate_hz": pa.int32(),
        "channels": pa.int32(),
        "frames": pa.int64(),
        "seconds": pa.float64(),
        "rows": pa.int64(),
        "shards": pa.list_(pa.string()),
        "rows_digest": pa.string(),
        "peak_dbfs": pa.float32(),
        "deselected_by": pa.string(),
        "duplicate_of": pa.string(),
        "split_unit": pa.string(),
        "tags": pa.map_(pa.string(), pa.string()),
        "measures": measures_type(),
    }
)

FAILURES = pa.schema(
    {
        **dict.fromkeys(
            ("recording_id", "uri", "fingerprint", "stage", "cause", "message"), pa.string()
        ),
        "attempts": pa.int32(),
    }
)

SHARDS = pa.schema(
    {
        "name": pa.string(),
        "split": pa.string(),
        "rows": pa.int64(),
        "parquet_bytes": pa.int64(),
        "tfrecord_bytes": pa.int64(),
        "summary": pa.binary(),
    }
)

#: Pairs of recordings that sound the same, or of which the second contains the first.
MATCHES = pa.schema(
    {
        **dict.fromkeys(("first", "second", "kind"), pa.string()),
        **dict.fromkeys(("offset_seconds", "overlap_seconds", "error"), pa.float64()),
    }
)

#: What decides between the recordings of a match; ``status`` is the one without ``dedupe``.
MATCHED_RECORDINGS = pa.schema(
    {
        **{name: RECORDINGS.field(name).type for name in ("recording_id", "uri", "split")},
        **{name: RECORDINGS.field(name).type for name in ("status", "size_bytes", "seconds")},
        **{"sample_rate_hz": pa.int32(), "channels": pa.int32()},
        **{"digest": pa.string(), "bandwidth_hz": pa.float64()},
        **{"split_unit": pa.string(), "duplicate_of": pa.string()},
    }
)

#: Splits of the units that are or were in a group of duplicates, and the version since when.
SPLIT_UNITS = pa.schema({"unit": pa.string(), "split": pa.string(), "since": pa.int64()})

#: Columns of an index's tables. The last three are there only if duplicates are looked for, in one
#: part each.
SCHEMAS = {
    **{"recordings": RECORDINGS, "failures": FAILURES, "shards": SHARDS, "matches": MATCHES},
    **{"matched_recordings": MATCHED_RECORDINGS, "split_units": SPLIT_UNITS},
}


def recordings_per_part(meters: Collection[str]) -> int:
    """Return the number of recordings in a part of an index, or up to twice as many.

    >>> recordings_per_part(["level"]), recordings_per_part(["level", "acoustic"])
    (50000, 2500)
    """
    return _FINGERPRINTS_PER_PART if "acoustic" in meters else RECORDINGS_PER_PART


def recording_row(
    planned: PlannedRecording,
    held: Iterable[Held],
    features_digest: str,
    measured: Iterable[MeasuredPart] = (),
) -> dict[str, Any]:
    """Return the row of a recording that was planned.

    Its status is ``ok``; ``partial`` if only the audio before a damage was planned;
    ``deselected`` if the recipe's selection refuses it; ``duplicate`` if another recording of its
    group is kept; ``skipped`` if no rows were planned;
    ``unwritten`` if no shard was written, because too many recordings
    had failed before. An index with unwritten recordings is never committed.

    Parameters
    ----------
    planned
        Planned recording.
    held
        Rows of the recording in each shard that holds any.
    features_digest
        Digest of the feature configuration.
    measured
        Parts of the recording that were measured.
    """
    recording, audio = planned.probed.recording, planned.probed.audio
    shards = sorted(held, key=lambda part: part.shard)
    parts = [part.rows for part in shards]
    status = "partial" if planned.probed.damage else "ok"
    if planned.deselected_by:
        status = "deselected"
    elif not shards:
        without_rows = "duplicate" if planned.duplicate_of else "skipped"
        status = "unwritten" if planned.rows else without_rows
    return {
        "recording_id": recording.recording_id,
        "uri": recording.uri,
        "fingerprint": recording.fingerprint,
        "content_hash": recording.content_hash or None,
        "feature_key": digest(recording.fingerprint, features_digest),
        "status": status,
        "split": planned.split,
        "labels_digest": labels_digest(recording),
        "container": audio.container,
        "codec": audio.codec,
        "decoder": audio.decoder,
        "size_bytes": recording.size_bytes,
        "sample_rate_hz": audio.sample_rate_hz,
        "channels": audio.channels,
        "frames": audio.frames,
        "seconds": planned.probed.seconds,
        "rows": sum(part.rows for part in parts),
        "shards": [part.shard for part in shards],
        "rows_digest": sum_digests(part.digest for part in parts),
        "peak_dbfs": max((part.peak_dbfs for part in parts), default=None),
        "deselected_by": planned.deselected_by or None,
        "duplicate_of": planned.duplicate_of or None,
        "split_unit": planned.split_unit or None,
        "tags": list(audio.tags),
        "measures": _measures(recording, measured),
    }


def _measures(recording: Recording, measured: Iterable[MeasuredPart]) -> dict[str, Any] | None:
    """Return the readings of a recording: new ones, or those of the previous snapshot."""
    readings: dict[str, Any] | None = read_all(measured) or json.loads(recording.measures or "null")
    return readings


def sum_digests(digests: Iterable[str]) -> str | None:
    """Return the digest of rows in several shards; ``None`` without rows or if any is unknown.

    >>> sum_digests(["0f", "01"]), sum_digests([]), sum_digests(["0f", ""])
    ('00000000000000000000000000000010', None, None)
    """
    parts = list(digests)
    if not parts or not all(parts):
        return None
    return digest_text(combine_digests(int(part, 16) for part in parts))


def failed_row(
    failure: Failure, planned: PlannedRecording | None, features_digest: str
) -> dict[str, Any]:
    """Return the row of a failed recording, with the values that were known before it failed."""
    known = recording_row(planned, (), features_digest) if planned else {}
    return known | {
        "recording_id": failure.recording_id,
        "uri": failure.uri,
        "fingerprint": failure.fingerprint,
        "feature_key": digest(failure.fingerprint, features_digest),
        "status": "failed",
        "rows": 0,
        "shards": [],
        "rows_digest": None,
        "measures": None,
        "duplicate_of": None,
    }


def failure_row(failure: Failure, attempts: int = 1) -> dict[str, Any]:
    """Return the row of a failure, with the number of attempts."""
    texts = {name: str(getattr(failure, name)) for name in FAILURES.names if name != "attempts"}
    return {**texts, "attempts": attempts}


def shard_row(summary: ShardSummary) -> dict[str, Any]:
    """Return the row of a shard; its ``summary`` lacks the failures and what was measured.

    The failures are rows of their own table, where a takedown finds them. The readings are in the
    rows of the recordings.
    """
    return {
        "name": summary.name,
        "split": summary.split,
        "rows": summary.rows,
        "parquet_bytes": summary.parquet.size_bytes if summary.parquet else 0,
        "tfrecord_bytes": summary.tfrecord.size_bytes if summary.tfrecord else 0,
        "summary": summary.of_rows.to_json(),
    }


def write_part(
    store: Store,
    index: str,
    kind: str,
    part: int,
    rows: list[dict[str, Any]],
    carried: pa.Table | None = None,
) -> str | None:
    """Write one part of a table of the index, sorted by its key, and return the file's name.

    A part without rows is not written, and the result is ``None``. The first part of the
    recordings table is always written.

    Parameters
    ----------
    store, index, kind, part
        Dataset, and the place of the part; see :func:`part_name`.
    rows
        New rows.
    carried
        Rows that are carried over from another index.
    """
    schema = SCHEMAS[kind]
    table = pa.Table.from_pylist(rows, schema=schema)
    if carried is not None:
        table = pa.concat_tables([carried, table])
    # Every index has the first part of its recordings: that file shows that the index exists.
    if not table.num_rows and (kind, part) != ("recordings", 0):
        return None
    name = part_name(index, kind, part)
    with store.scratch() as path:
        pq.write_table(table.sort_by(schema.names[0]), path, compression="zstd")
        store.publish(path, name)
    return name


def part_name(index: str, kind: str, part: int) -> str:
    """Return the name of one part of a table: ``recordings``, ``failures`` or ``shards``.

    >>> part_name("5f", "shards", 3)
    'index/5f/shards-00003.parquet'
    """
    return f"index/{index}/{kind}-{part:05d}.parquet"


def read_part(
    store: Store, index: str, kind: str, part: int, columns: list[str] | None = None
) -> pa.Table:
    """Return one part of a table of an index: a bounded number of rows.

    The table is empty if the part does not exist. Columns that an older index lacks are null.
    """
    schema = SCHEMAS[kind]
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    try:
        with _open_part(store, part_name(index, kind, part)) as table:
            stored_names = [name for name in schema.names if name in table.schema_arrow.names]
            rows = table.read(columns=stored_names)
    except FileNotFoundError:
        return schema.empty_table()
    for field in schema:
        if field.name not in stored_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def read_fields(store: Store, index: str, kind: str, part: int, fields: list[str]) -> pa.Table:
    """Return columns and fields of structs (``measures.acoustic.digest``) of a part of a table.

    Only these are decoded. Each is a column of the result, in this order.

    Raises
    ------
    DatasetError
        The index is missing: its first part is always there.
    """
    name = part_name(index, kind, part)
    try:
        return read_columns(store, name, fields)
    except FileNotFoundError:
        if part == 0:
            raise DatasetError(f"{store.root}/{name} is missing: another run removed it") from None
        return _with_fields(SCHEMAS[kind].empty_table(), fields)


def read_columns(store: Store, name: str, fields: list[str]) -> pa.Table:
    """Return columns and fields of structs of a Parquet file; see :func:`read_fields`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    with _open_part(store, name) as table:
        return _with_fields(table.read(columns=fields), fields)


def _with_fields(rows: pa.Table, fields: list[str]) -> pa.Table:
    columns = []
    for field in fields:
        name, *inner = field.split(".")
        if name not in rows.column_names:  # an older index lacks it
            rows = rows.append_column(name, pa.nulls(rows.num_rows, RECORDINGS.field(name).type))
        column = rows[name].combine_chunks()
        columns.append(pc.struct_field(column, inner) if inner else column)
    return pa.table(columns, names=fields)


def count_parts(store: Store, index: str) -> int:
    """Return the number of parts of an index, counted from the names of its files."""
    names = store.names(f"index/{index}")
    numbers = re.findall(r"recordings-(\d+)", " ".join(names))
    return 1 + max(map(int, numbers), default=0)


def read_index(
    store: Store, index: str, kind: str, columns: list[str] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table of the index, with a bounded number of rows in memory."""
    for batch in read_batches(store, index, kind, columns):
        yield from batch.to_pylist(maps_as_pydicts="strict")


def read_batches(
    store: Store, index: str, kind: str, columns: list[str] | None = None
) -> Iterator[Any]:
    """Yield a table of the index as ``pyarrow.RecordBatch`` objects, part by part in order.

    Columns that an older index lacks are null.
    """
    for name in sorted(store.names(f"index/{index}")):
        if name.rsplit("/", 1)[-1].startswith(f"{kind}-"):
            with _open_part(store, name) as table:
                for batch in table.iter_batches(_ROWS_PER_READ, columns=columns):
                    yield _with_columns(batch, SCHEMAS[kind], columns or ())


def _open_part(store: Store, name: str) -> ParquetFile:
    # One request for the whole file: the store retries it, and a part is small.
    return ParquetFile(pa.BufferReader(store.read(name)))


def _with_columns(batch: Any, schema: pa.Schema, columns: Iterable[str]) -> Any:
    for name in columns:
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.nulls(batch.num_rows, schema.field(name).type))
    return batch


def read_shards(store: Store, index: str) -> Iterator[ShardSummary]:
    """Yield the summaries of a snapshot's shards, sorted by name within each part."""
    for row in read_index(store, index, "shards", ["summary"]):
        yield ShardSummary.from_json(row["summary"])


def shard_names(store: Store, index: str) -> Iterator[str]:
    """Yield the names of the shards in an index."""
    return (row["name"] for row in read_index(store, index, "shards", ["name"]))


def is_indexed(store: Store, shard: str) -> bool:
    """Return whether any index of the dataset contains a shard; this reads all indexes."""
    indexes = sorted({name.split("/")[1] for name in store.names("index")})
    return any(shard in shard_names(store, index) for index in indexes)
