"""A snapshot, opened as what a job starts from, and its side files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deltalake import Schema

from melmill.pipelines.config import Config, load_config
from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.catalogue.tables import Table
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import count_parts
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.rows.parquet import read_schema
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.card import brief_statistics, stale_files, write_card
from melmill.transforms.snapshot.delta import (
    Snapshot,
    has_columns,
    open_table,
    require_snapshot,
    table_files,
    table_labels,
)
from melmill.transforms.snapshot.totals import Totals, add_up, ordered_shards, require_consistent
from melmill.transforms.store.endpoints import require_reachable
from melmill.transforms.store.folders import Store

#: Keys of the recipe's section ``output`` that a shard's bytes depend on.
_FILES = ("formats", "row_group_rows", "compression_level")


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


def require_agreement(store: Store, current: Snapshot) -> None:
    """See that the log and the index of the current snapshot agree; else ``DatasetError``."""
    table = open_table(store)
    files = {name for name, _, _ in table_files(table)} if table else set()
    require_consistent(store, current.index, files)


def job_of(store: Store, snapshot: Snapshot, operation: str) -> ExtractJob:
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
    labels = row_schema(store, snapshot).labels
    return ExtractJob(
        catalogue=Catalogue(snapshot.catalogue, Table(snapshot.catalogue, "", labels)),
        store=store,
        features=recipe.features(),
        split=recipe.split.spec(),
        shards=recipe.output.shard_spec(),
        writer=recipe.output.writer_spec(),
        limits=recipe.limits.spec(),
        base=base_of(store, snapshot),
        operation=operation,
    )


def base_of(store: Store, snapshot: Snapshot) -> Base:
    """Give a snapshot as what a job starts from that changes no configuration."""
    parts = snapshot.parts or count_parts(store, snapshot.index)
    return Base(snapshot.version, snapshot.index, parts, snapshot.listed_ms)


def start_from(job: ExtractJob, current: Snapshot, configuration: dict[str, Any]) -> ExtractJob:
    """Make of an extraction the refresh that starts from a snapshot."""
    require_agreement(job.store, current)
    before = current.configuration
    base = Base(
        version=current.version,
        index=current.index,
        parts=current.parts or count_parts(job.store, current.index),
        listed_ms=current.listed_ms,
        same_features=current.features == job.features.canonical(),
        same_files=_same_files(job, before, configuration),
        same_split=before.get("split") == configuration["split"],
        max_seconds=3600 * before.get("limits", {}).get("max_duration_hours", 0.0),
        configured=_made_with(before) == _made_with(configuration),
        damaged=before.get("limits", {}).get("damaged", "fail"),
    )
    return in_its_staging(replace(job, base=base, taken_down=current.taken_down))


def in_its_staging(job: ExtractJob) -> ExtractJob:
    """Let a job write its scratch files into its own staging folder."""
    return replace(job, store=replace(job.store, scratch_folder=f"{job.staging}/scratch"))


def _made_with(configuration: dict[str, Any]) -> dict[str, Any]:
    """Leave out what no row depends on, nor whether a recording is in."""
    return {k: v for k, v in configuration.items() if k not in ("refresh", "retention")}


def _same_files(job: ExtractJob, before: dict[str, Any], now: dict[str, Any]) -> bool:
    table, output = open_table(job.store), before.get("output", {})
    if table is None or not has_columns(table, Schema.from_arrow(job.schema.table())):
        return False
    return all(_as_written(output, key) == _as_written(now["output"], key) for key in _FILES)


def _as_written(output: dict[str, Any], key: str) -> Any:
    # Parquet is written whether it is asked for or not.
    return {*output.get(key, ()), "parquet"} if key == "formats" else output.get(key)


def describe(store: Store, snapshot: Snapshot, schema: RowSchema) -> Totals:
    """Write the card of a snapshot that was committed."""
    totals = add_up(store, snapshot.index)
    write_card(store, snapshot, totals, schema)
    return totals


def mend_side_files(store: Store, snapshot: Snapshot) -> None:
    """Write the card and its like anew where they do not describe the current snapshot.

    A run that was killed after its commit has not written them, or not all of them.
    """
    schema = row_schema(store, snapshot)
    if stale_files(store, snapshot, schema):
        describe(store, snapshot, schema)


def statistics_of(store: Store, index: str) -> dict[str, Any]:
    """Give what a commit says of an index's rows."""
    return brief_statistics(add_up(store, index))
