"""What ``compact``, ``takedown`` and ``rollback`` have in common: a snapshot, opened as a job."""

from __future__ import annotations

from typing import Any

from pipelines.config import Config, load_config
from transforms.errors import DatasetError
from transforms.job import Base, ExtractJob
from transforms.storage.card import brief_statistics, card_is_of, write_card
from transforms.storage.catalogue import Catalogue
from transforms.storage.endpoints import require_reachable
from transforms.storage.index import count_parts
from transforms.storage.parquet import read_schema
from transforms.storage.schema import RowSchema
from transforms.storage.snapshot import Snapshot, open_table, require_snapshot, table_files
from transforms.storage.store import Store
from transforms.storage.tables import Table
from transforms.storage.totals import Totals, add_up, ordered_shards, require_consistent


def open_snapshot(store: Store) -> Snapshot:
    """Read a dataset's current snapshot, to make another of it.

    Raises
    ------
    DatasetError
        There is none.
    """
    require_reachable(store.root, store.storage_options, DatasetError)
    return require_snapshot(store)


def open_whole_snapshot(store: Store) -> Snapshot:
    """Read a dataset's current snapshot, and see that its log and its index agree.

    Raises
    ------
    DatasetError
        There is none, or it is damaged.
    """
    current = open_snapshot(store)
    require_agreement(store, current)
    return current


def require_agreement(store: Store, current: Snapshot) -> None:
    """See that the log and the index of the current snapshot agree; else ``DatasetError``."""
    table = open_table(store)
    files = {name for name, _, _ in table_files(table)} if table else set()
    require_consistent(store, current.index, files)


def recipe_of(snapshot: Snapshot) -> Config:
    """Give the recipe that a snapshot was made with; ``ConfigError`` where it is none any more."""
    return load_config(None, (), snapshot.configuration)


def row_schema(store: Store, index: str) -> RowSchema:
    """Read the columns of a snapshot's rows from one of its shards."""
    for shard in ordered_shards(store, index):
        if shard.parquet is not None:
            with store.reading_shard(shard.parquet.name) as file:
                return read_schema(file)[0]
    raise DatasetError(f"{store.root}: its snapshot holds no shard")


def job_of(store: Store, snapshot: Snapshot) -> ExtractJob:
    """Give the job that writes a snapshot's rows again as they are.

    Raises
    ------
    DatasetError
        They were computed by another version of the extractor, whose name they must not get.
    """
    recipe = recipe_of(snapshot)
    if recipe.features().canonical() != snapshot.features:
        raise DatasetError(
            f"{store.root}: was made by another version of melmill; refresh it first"
        )
    labels = row_schema(store, snapshot.index).labels
    return ExtractJob(
        catalogue=Catalogue(snapshot.catalogue, Table(snapshot.catalogue, "", labels)),
        store=store,
        features=recipe.features(),
        split=recipe.split.spec(),
        shards=recipe.output.shard_spec(),
        writer=recipe.output.writer_spec(),
        limits=recipe.limits.spec(),
        base=base_of(store, snapshot),
    )


def base_of(store: Store, snapshot: Snapshot) -> Base:
    """Give a snapshot as what a job starts from that changes no configuration."""
    parts = snapshot.parts or count_parts(store, snapshot.index)
    return Base(snapshot.version, snapshot.index, parts, snapshot.listed_ms)


def describe(store: Store, snapshot: Snapshot, schema: RowSchema) -> Totals:
    """Write the card of a snapshot that was committed."""
    totals = add_up(store, snapshot.index)
    write_card(store, snapshot, totals, schema)
    return totals


def mend_card(store: Store, snapshot: Snapshot) -> None:
    """Write the card that a run which was killed after its commit has not written."""
    if not card_is_of(store, snapshot):
        describe(store, snapshot, row_schema(store, snapshot.index))


def statistics_of(store: Store, index: str) -> dict[str, Any]:
    """Give what a commit says of an index's rows."""
    return brief_statistics(add_up(store, index))
