"""Rows of a snapshot that are drawn at random, to be computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from melmill.transforms.rows.parquet import read_rows, read_schema
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.totals import ordered_shards
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True, eq=False)
class SampledRow:
    """A row of the dataset that is recomputed."""

    recording_id: str
    uri: str
    chunk_index: int
    channel: int
    start_sample: int
    valid_samples: int
    features: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    variant: int = 0


def sample_rows(store: Store, snapshot: Snapshot, sample: int, seed: int) -> Iterator[SampledRow]:
    """Yield rows that are drawn uniformly; reads only the row groups that hold them."""
    shards = [(s.parquet.name, s.rows) for s in ordered_shards(store, snapshot.index) if s.parquet]
    total = sum(rows for _, rows in shards)
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.choice(total, min(sample, total), replace=False))
    first = 0
    for name, rows in shards:
        within = chosen[(chosen >= first) & (chosen < first + rows)] - first
        first += rows
        if len(within):
            with store.reading_shard(name) as file:
                yield from _read_chosen(file, within)


def _read_chosen(file: IO[bytes], chosen: npt.NDArray[np.int64]) -> Iterator[SampledRow]:
    with_variants = read_schema(file)[0].with_variants
    metadata = pq.read_metadata(file)
    lengths = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    borders = np.cumsum([0, *lengths])
    groups = np.searchsorted(borders, chosen, side="right") - 1
    unique_groups = [int(group) for group in np.unique(groups)]
    for group, batch in zip(unique_groups, read_rows(file, unique_groups), strict=True):
        for row in chosen[groups == group] - borders[group]:
            columns = {name: values[row] for name, values in batch.columns.items()}
            yield SampledRow(
                str(columns["recording_id"]),
                str(columns["uri"]),
                int(columns["chunk_index"]),
                int(columns.get("channel", 0)),
                int(columns["start_sample"]),
                int(columns["valid_samples"]),
                {name: values[row].copy() for name, values in batch.features.items()},
                int(columns["variant"]) if with_variants else 0,
            )
