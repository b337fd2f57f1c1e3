"""A change of stored rows that also replaces the checksum, so that the checksum is correct."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from melmill.transforms.index.tables import read_shards, shard_row, write_part
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store


def change_a_row(store: Store) -> str:
    """Change a value in a shard's first row, and the shard's checksum in the index.

    Return the ``recording_id`` of the row. The index must have only one part.
    """
    index = require_snapshot(store).index
    shards = list(read_shards(store, index))
    target = next(shard for shard in shards if shard.parquet)
    assert target.parquet is not None
    path = Path(store.path(target.parquet.name))
    table = pq.read_table(path)
    mel = table["mel"].to_pylist()
    mel[0][0][0] += 1.0
    column = pa.array(mel, table.schema.field("mel").type)
    position = table.schema.names.index("mel")
    changed_table = table.set_column(position, table.schema.field("mel"), column)
    pq.write_table(changed_table, path)
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    file = replace(target.parquet, size_bytes=len(content), sha256=checksum)
    signed = [replace(s, parquet=file) if s is target else s for s in shards]
    write_part(store, index, "shards", 0, [shard_row(shard) for shard in signed])
    return str(table["recording_id"][0].as_py())
