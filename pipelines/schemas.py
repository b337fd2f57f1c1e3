"""A snapshot's recipe, and the columns of its rows; needs no Beam, so that readers are quick."""

from __future__ import annotations

from pipelines.config import Config, load_config
from transforms.rows.parquet import read_schema
from transforms.rows.schema import RowSchema
from transforms.snapshot.delta import Snapshot, table_labels
from transforms.snapshot.totals import ordered_shards
from transforms.store.folders import Store


def recipe_of(snapshot: Snapshot) -> Config:
    """Give the recipe that a snapshot was made with; ``ConfigError`` where it is none any more."""
    return load_config(None, (), snapshot.configuration)


def row_schema(store: Store, snapshot: Snapshot) -> RowSchema:
    """Read the columns of a snapshot's rows from one of its shards.

    Where it has none, the table's columns and the recipe say what rows would have.
    """
    for shard in ordered_shards(store, snapshot.index):
        if shard.parquet is not None:
            with store.reading_shard(shard.parquet.name) as file:
                return read_schema(file)[0]
    n_mels, n_frames = recipe_of(snapshot).features().shape
    labels, per_channel = table_labels(store, snapshot.version)
    return RowSchema(n_mels, n_frames, labels, per_channel)
