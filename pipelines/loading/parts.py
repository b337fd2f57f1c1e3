"""Parts of what a loader reads: a split of a snapshot each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from melmill.pipelines.added_columns import Joining
from melmill.pipelines.loading.class_weights import Weighting
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.row_loader import RowLoader
from melmill.pipelines.loading.window_reader import WindowReader
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.naming import digest
from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.mixing import Mixture, Source
from melmill.transforms.loading.row_order import RowOrder
from melmill.transforms.loading.state import OrderIdentity, SourceIdentity
from melmill.transforms.shards.writing import rows_of_groups


@dataclass(frozen=True)
class SplitPart:
    """A split of a snapshot that a loader reads.

    Attributes
    ----------
    reader
        Reads the rows.
    source
        The split's place in the order.
    identity
        What identifies the split, for states.
    columns
        The columns to give; the reader may read more.
    features
        The features among the columns, by name.
    """

    reader: WindowReader
    source: Source
    identity: SourceIdentity
    columns: list[str]
    features: Mapping[str, FeatureColumn]


def open_part(
    opened: OpenSnapshot,
    split: str,
    files: list[str],
    joining: Joining,
    columns: list[str],
    *,
    lengths: Sequence[str] = (),
    weighting: Weighting | None = None,
    verify: bool = True,
) -> SplitPart:
    """Return a split as a part of a loader; reads the index alone.

    Parameters
    ----------
    opened
        The snapshot.
    split, files
        The split, and the names of its Parquet files.
    joining
        Joins the added columns among the chosen ones.
    columns
        The columns to give.
    lengths
        The columns with lengths that a loader needs besides.
    weighting
        How often each row occurs; ``None`` if each occurs once.
    verify
        Whether to verify the checksums of pages.
    """
    rows_of = {shard.parquet.name: shard.rows for shard in opened.shards() if shard.parquet}
    configured = opened.snapshot.configuration.get("output", {}).get("row_group_rows", 128)
    blocks = Blocks(
        tuple(rows_of[name] for name in files), rows_of_groups(configured, opened.schema)
    )
    source = Source(blocks, weighting.repeats if weighting else None)
    identity = SourceIdentity(
        dataset=opened.snapshot.index,
        version=opened.snapshot.version,
        split=split,
        rows=blocks.rows,
        block_rows=blocks.block_rows,
        weighting=digest(weighting.text) if weighting else "",
    )
    read = list(dict.fromkeys([*columns, *lengths]))
    reader = WindowReader(opened.store, files, read, joining, verify)
    features = {column.name: column for column in opened.schema.features if column.name in columns}
    return SplitPart(reader, source, identity, columns, features)


def open_loader(
    parts: Sequence[SplitPart],
    order: RowOrder,
    weights: Sequence[float] = (1.0,),
    kept_windows: int = 1,
    cuts: Cuts | None = None,
) -> RowLoader:
    """Return a loader of the rows of all parts.

    Parameters
    ----------
    parts
        The parts, which must have the same columns.
    order
        The settings of the order.
    weights
        The weight of each part.
    kept_windows
        The number of windows of each lane and part that stay in memory.
    cuts
        How features are cut; ``None`` for not at all.

    Raises
    ------
    DatasetError
        A feature has another shape or type in another part.
    ConfigError
        A column has the name of a length or a mask.
    """
    first, cuts = parts[0], cuts or Cuts()
    cuts.require_free_names(first.columns)
    for part in parts[1:]:
        _require_same(first, part)
    sources = [replace(p.source, weight=w) for p, w in zip(parts, weights, strict=True)]
    mixture = Mixture(tuple(sources), order)
    own = [replace(p.identity, weight=w) for p, w in zip(parts, weights, strict=True)]
    return RowLoader(
        mixture,
        tuple(part.reader for part in parts),
        first.columns,
        first.features,
        OrderIdentity(tuple(own), order, mixture.rows),
        kept_windows,
        cuts,
    )


def _require_same(first: SplitPart, other: SplitPart) -> None:
    for name, column in first.features.items():
        known = other.features.get(name)
        if known is None or (known.shape, known.dtype) != (column.shape, column.dtype):
            described = f"{known.dtype} {known.shape}" if known else "no feature"
            raise DatasetError(
                f"{other.reader.store.root}: {name!r} is {described}, and in "
                f"{first.reader.store.root} it is {column.dtype} {column.shape}; mix datasets of "
                "the same features, or choose other columns"
            )
