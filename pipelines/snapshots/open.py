"""An opened snapshot: its parts are read at most once, and shared by all code that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from deltalake import Schema

from melmill.pipelines.config import Config, load_config
from melmill.pipelines.snapshots.spectrograms import draw_spectrograms
from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.catalogue.tables import Table
from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.index.tables import count_parts
from melmill.transforms.measures.registry import meters_in
from melmill.transforms.plan.job import Base, ExtractJob, is_matching
from melmill.transforms.rows.parquet import read_schema
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.side_tables.known_recordings import KnownRecordings
from melmill.transforms.side_tables.side_table import kept_tables
from melmill.transforms.snapshot.card import (
    brief_statistics,
    picture_name,
    stale_files,
    write_card,
)
from melmill.transforms.snapshot.delta import (
    Snapshot,
    has_columns,
    open_table,
    require_past,
    require_snapshot,
    split_rule,
    table_files,
    table_labels,
)
from melmill.transforms.snapshot.totals import (
    Totals,
    add_up,
    ordered_shards,
    require_consistent,
    training_split,
)
from melmill.transforms.store.endpoints import require_reachable
from melmill.transforms.store.folders import Store

#: Keys of the recipe's section ``output`` that a shard's bytes depend on.
_FILES = ("formats", "row_group_rows", "compression_level")
#: Number of shards that are opened to find the columns, if the first cannot be read.
_SHARDS_TO_TRY = 3


@dataclass(frozen=True)
class OpenSnapshot:
    """An opened snapshot of a dataset; each property is read from the store on first use.

    Attributes
    ----------
    store
        The dataset.
    snapshot
        The snapshot as its commit describes it.
    """

    store: Store
    snapshot: Snapshot

    @classmethod
    def current(cls, store: Store) -> OpenSnapshot:
        """Open the current snapshot; raise ``DatasetError`` if there is none."""
        require_reachable(store.root, store.storage_options, DatasetError)
        return cls(store, require_snapshot(store))

    @classmethod
    def whole(cls, store: Store) -> OpenSnapshot:
        """Open the current snapshot; raise ``DatasetError`` if its log and its index differ."""
        opened = cls.current(store)
        opened.require_agreement()
        return opened

    @classmethod
    def committed(cls, known: OpenSnapshot) -> OpenSnapshot:
        """Open the current snapshot after a commit of the index that is known already.

        What is known is not read again, unless another run has committed since.
        """
        current = cls.current(known.store)
        if current.snapshot.index == known.snapshot.index:
            current.knowing(known.totals, known.schema)
        return current

    @classmethod
    def at(cls, store: Store, version: int | None) -> OpenSnapshot:
        """Open an earlier snapshot, or for ``None`` the current one."""
        return cls.current(store) if version is None else cls.past(store, version)

    @classmethod
    def past(cls, store: Store, version: int) -> OpenSnapshot:
        """Open an earlier snapshot; raise ``DatasetError`` if it is not kept."""
        require_reachable(store.root, store.storage_options, DatasetError)
        return cls(store, require_past(store, version).snapshot)

    @cached_property
    def recipe(self) -> Config:
        """Return the snapshot's recipe; raise ``ConfigError`` if it is no longer valid."""
        return load_config(None, (), self.snapshot.recipe)

    @cached_property
    def totals(self) -> Totals:
        """Return the snapshot's totals, added up from its index."""
        return add_up(self.store, self.snapshot.index)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the rows that a commit stores."""
        return brief_statistics(self.totals)

    @cached_property
    def parts(self) -> int:
        """Return the number of parts of the index."""
        return self.snapshot.parts or count_parts(self.store, self.snapshot.index)

    @cached_property
    def schema(self) -> RowSchema:
        """Return the columns of the rows, read from the first shard that can be read.

        All shards have the same columns. A damaged shard is named when its rows are read. If the
        snapshot has no shards, the columns come from the table and the recipe.

        Raises
        ------
        DatasetError
            Several shards cannot be read; the error names the first.
        """
        errors: list[DatasetError] = []
        names_of_shards = (shard.parquet.name for shard in self.shards() if shard.parquet)
        for name in islice(names_of_shards, _SHARDS_TO_TRY):
            try:
                with self.store.reading_shard(name) as file:
                    return read_schema(file)[0]
            except UnavailableError:
                raise
            except DatasetError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        features = self.recipe.feature_spec().columns
        names = [*(column.name for column in features), *(column.valid for column in features)]
        labels, per_channel = table_labels(self.store, self.snapshot.version, names)
        with_variants = bool(self.recipe.variants)
        return RowSchema(features, labels, per_channel, with_variants)

    def shards(self) -> Iterator[ShardSummary]:
        """Yield the summaries of the shards that hold rows, always in the same order."""
        return ordered_shards(self.store, self.snapshot.index)

    def knowing(self, totals: Totals, schema: RowSchema) -> OpenSnapshot:
        """Set totals and schema that a run already knows; return this snapshot."""
        vars(self).update(totals=totals, schema=schema)
        return self

    def require_agreement(self) -> None:
        """Raise ``DatasetError`` if the table's log and the index list different files."""
        table = open_table(self.store)
        files = {name for name, _, _ in table_files(table)} if table else set()
        require_consistent(self.store, self.snapshot.index, files)

    @property
    def known_recordings(self) -> KnownRecordings:
        """Return the recordings of the index, to compare side tables with them."""
        return KnownRecordings(self.store, self.snapshot.index, self.parts)

    def base(self) -> Base:
        """Return the snapshot as the base of a job that does not change the configuration."""
        snapshot = self.snapshot
        return Base(snapshot.version, snapshot.index, self.parts, snapshot.listed_ms)

    def write_card(self) -> None:
        """Write the side files: the card and its picture, and other descriptions."""
        self._draw_picture()
        write_card(self.store, self.snapshot, self.totals, self.schema)

    def _draw_picture(self) -> None:
        """Draw the picture of the card, if it is missing and something can be drawn."""
        name = picture_name(self.snapshot)
        if self.store.size(name) is None:
            split = training_split(self.totals.splits)
            shards = (shard.parquet for shard in self.shards() if shard.split == split)
            names = (file.name for file in shards if file)
            if picture := draw_spectrograms(self.store, names, self.snapshot, self.schema):
                self.store.put(name, picture)

    def stale_files(self) -> list[str]:
        """Return the names of side files that are missing or describe another snapshot."""
        return stale_files(self.store, self.snapshot, self.schema)

    def mend_side_files(self) -> None:
        """Write the side files again if any of them is missing or describes another snapshot.

        A run that was killed after its commit has not written all of them.
        """
        if self.stale_files():
            self.write_card()

    def has_own_features(self) -> bool:
        """Return whether this version of melmill would compute the same rows from the recipe."""
        return self.recipe.feature_spec().canonical() == self.snapshot.features

    def require_own_features(self) -> None:
        """Raise ``DatasetError`` if this version of melmill would compute other rows."""
        if not self.has_own_features():
            raise self._made_by_another()

    def require_own_values(self) -> None:
        """Raise ``DatasetError`` if this version would compute other values of the features.

        Rows of an older version may lack columns.
        """
        if not self.recipe.feature_spec().computes_same(self.snapshot.features):
            raise self._made_by_another()

    def _made_by_another(self) -> DatasetError:
        return DatasetError(
            f"{self.store.root}: was made by another version of melmill; refresh it first"
        )

    def job(self, operation: str) -> ExtractJob:
        """Return the job that writes the same rows to new files.

        Raises
        ------
        DatasetError
            The rows were computed by another version of the extractor; the new files must not be
            marked with the current version.
        """
        self.require_own_features()
        return self.job_without_rows(operation)

    def job_without_rows(self, operation: str) -> ExtractJob:
        """Return the job that writes no rows; another version of melmill may have made them."""
        catalogue = self.snapshot.catalogue
        return in_its_staging(
            ExtractJob(
                catalogue=Catalogue(catalogue, Table(catalogue, "", self.schema.labels)),
                store=self.store,
                features=self.recipe.feature_spec(),
                split=self.recipe.split.spec(),
                shards=self.recipe.output.shard_spec(),
                writer=self.recipe.output.writer_spec(),
                limits=self.recipe.limits.spec(),
                dedupe=self.recipe.dedupe,
                base=self.base(),
                operation=operation,
            )
        )


def start_from(job: ExtractJob, current: OpenSnapshot, configuration: dict[str, Any]) -> ExtractJob:
    """Return the job of an extraction as a refresh that starts from a snapshot."""
    current.require_agreement()
    snapshot, before = current.snapshot, current.snapshot.recipe
    _require_other_names(job, current)
    meters = meters_in(before["quality"])
    is_measured = set(job.meters) <= set(meters)
    same_split = split_rule(before) == split_rule(configuration)
    base = replace(
        current.base(),
        same_features=snapshot.features == job.features.canonical()
        and is_measured
        and _has_groups(job, before, same_split)
        and (not job.split.stratify or bool(before["split"]["stratify"])),
        unchanged_features=job.features.unchanged_since(snapshot.features),
        unchanged_variants=job.features.unchanged_variants(snapshot.features),
        same_files=_same_files(job, before, configuration),
        same_split=same_split,
        max_seconds=3600 * before.get("limits", {}).get("max_duration_hours", 0.0),
        configured=_row_sections(before) == _row_sections(configuration),
        damaged=before.get("limits", {}).get("damaged", "fail"),
        meters=meters,
        select=before["select"] or "",
        dedupe=before["dedupe"],
    )
    return in_its_staging(replace(job, base=base, taken_down=snapshot.taken_down))


def _require_other_names(job: ExtractJob, current: OpenSnapshot) -> None:
    """Raise ``DatasetError`` if a column of the job has the name of an added column."""
    schema = job.schema
    own = {name.casefold() for name in (*schema.columns(), *(c.name for c in schema.features))}
    for table in kept_tables(current.snapshot.side_tables, job.features.canonical()):
        if taken := [name for name in table.columns if name.casefold() in own]:
            raise DatasetError(
                f"{job.store.root}: {taken[0]!r} is an added column, and the catalogue or the "
                "recipe now has a column of this name; rename that column, or drop the added one: "
                f"melmill add-columns {job.store.root} --drop {taken[0]}"
            )


def _has_groups(job: ExtractJob, before: dict[str, Any], same_split: bool) -> bool:
    """Return whether a snapshot's index has what the job must know about duplicates.

    Otherwise all recordings are matched and planned anew, and their features are carried over.
    """
    keep_together = before.get("split", {}).get("keep_together")
    was_matching = is_matching(before["dedupe"], keep_together)
    return not job.is_matching or (was_matching and (same_split or not job.split.keep_together))


def in_its_staging(job: ExtractJob) -> ExtractJob:
    """Return the job with its scratch files in its own staging folder."""
    return replace(job, store=replace(job.store, scratch_folder=f"{job.staging}/scratch"))


def _row_sections(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the sections that decide which recordings and rows are in a dataset."""
    return {k: v for k, v in configuration.items() if k not in ("refresh", "retention")}


def _same_files(job: ExtractJob, before: dict[str, Any], now: dict[str, Any]) -> bool:
    table, output = open_table(job.store), before.get("output", {})
    if table is None or not has_columns(table, Schema.from_arrow(job.schema.table())):
        return False
    return all(_as_written(output, key) == _as_written(now["output"], key) for key in _FILES)


def _as_written(output: dict[str, Any], key: str) -> Any:
    # Parquet is always written, even if the recipe does not list it.
    return {*output.get(key, ()), "parquet"} if key == "formats" else output.get(key)
