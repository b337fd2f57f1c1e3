"""What a snapshot holds, added up from its index in bounded memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import fraction
from melmill.transforms.index.tables import read_batches, read_index, read_shards
from melmill.transforms.rows.distribution import (
    DURATION_EDGES_S,
    Distribution,
    DistributionCounter,
    histogram,
)
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.rows_digest import combine_digests
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.store.folders import Store

_EXAMPLES = 3
#: Groups of recordings whose rows are compared as one sum each.
_GROUPS = 4096


@dataclass(slots=True)
class SplitContent:
    """What one split holds.

    Attributes
    ----------
    recordings, rows, shards, parquet_bytes, tfrecord_bytes
        How much.
    seconds
        Length of its recordings.
    durations
        Recordings in each bin between
        :data:`~melmill.transforms.rows.distribution.DURATION_EDGES_S`.
    distribution
        Of its rows.
    """

    recordings: int = 0
    rows: int = 0
    shards: int = 0
    parquet_bytes: int = 0
    tfrecord_bytes: int = 0
    seconds: float = 0.0
    durations: npt.NDArray[np.int64] = field(
        default_factory=lambda: histogram((), DURATION_EDGES_S), repr=False, compare=False
    )
    counter: DistributionCounter = field(
        default_factory=DistributionCounter, repr=False, compare=False
    )

    @property
    def distribution(self) -> Distribution:
        """Of its rows."""
        return self.counter.total()


@dataclass(slots=True)
class Totals:
    """What a snapshot holds, and what it does not.

    Attributes
    ----------
    recordings
        Number by status: ``ok``, ``partial``, ``failed``, ``skipped``, ``unwritten``.
    seconds
        Length of the recordings that were used.
    splits
        Content of each split.
    failures
        Number by cause.
    examples
        Some failures of each cause, as ``(uri, message)``.
    moments
        Of the training split (or of the only split, where none is called so).
    null_labels
        Label columns in which some row has no value.
    """

    recordings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    splits: dict[str, SplitContent] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    moments: Moments | None = None
    null_labels: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return sum(content.rows for content in self.splits.values())

    @property
    def failure_ratio(self) -> float:
        """Share of the recordings that failed."""
        return self.recordings["failed"] / max(1, self.recordings.total())

    def split(self, name: str) -> SplitContent:
        """Content of a split, made where it is new."""
        return self.splits.setdefault(name, SplitContent())


def add_up(store: Store, index: str) -> Totals:
    """Add up an index; ``DatasetError`` where there is none."""
    totals = Totals()
    if next(store.names(f"index/{index}"), None) is None:
        raise DatasetError(f"{store.root}/index/{index} is missing or empty")
    _add_recordings(totals, store, index)
    for failure in read_index(store, index, "failures"):
        totals.failures[failure["cause"]] += 1
        examples = totals.examples.setdefault(failure["cause"], [])
        if len(examples) < _EXAMPLES:
            examples.append((failure["uri"], failure["message"]))
    for shard in ordered_shards(store, index):
        _add_shard(totals, shard)
    _add_moments(totals, store, index)
    return totals


def ordered_shards(store: Store, index: str) -> Iterator[ShardSummary]:
    """Read the shards with rows; always in the same order, so that sums have the same bits."""
    return (shard for shard in read_shards(store, index) if shard.rows)


def require_consistent(store: Store, index: str, files: Collection[str]) -> int:
    """See that an index is whole, and describes exactly these Parquet files; give its rows.

    Raises
    ------
    DatasetError
        It lacks a part, or the Delta log does.
    """
    names: set[str] = set()
    held = said = 0
    for row in read_index(store, index, "shards", ["name", "split", "rows"]):
        held += row["rows"]
        if row["rows"]:
            names.add(f"split={row['split']}/part-{row['name']}.parquet")
    for batch in read_batches(store, index, "recordings", ["rows"]):
        said += sum(batch.column("rows").to_pylist())
    if names != set(files) or held != said:
        raise DatasetError(
            f"{store.root}: its log names {len(files):,} shards, and index/{index}/ describes "
            f"{len(names):,} with {held:,} rows, of recordings with {said:,}: one of them is "
            "damaged. melmill history says which versions there are, melmill rollback goes back "
            "to one"
        )
    return held


def require_whole(store: Store, index: str) -> int:
    """See that shards hold what an index says of each recording; give the number of rows.

    Raises
    ------
    DatasetError
        A recording's rows are not all there, or are there twice, or it was planned and no shard
        of it was written.
    """
    differences = list(
        islice(chain(_unwritten(store, index), row_differences(store, index)), _EXAMPLES)
    )
    if differences:
        raise DatasetError(
            f"{store.root}/index/{index} contradicts itself: {'; '.join(differences)}; nothing was "
            "committed"
        )
    return sum(rows for _, rows, _ in _rows_said(store, index))


def _unwritten(store: Store, index: str) -> Iterator[str]:
    for batch in read_batches(store, index, "recordings", ["uri", "status"]):
        for uri, status in zip(*(batch.column(i).to_pylist() for i in range(2)), strict=True):
            if status == "unwritten":
                yield f"{uri} was planned, and no shard holds it"


def row_differences(store: Store, index: str) -> Iterator[str]:
    """Name the recordings of which the shards hold other rows than the index says.

    Memory does not grow with the catalogue: sums over groups of recordings are compared first,
    each recording's rows weighed by a digest of its name, then only the groups that differ.
    """
    said, held = (np.zeros(_GROUPS, np.uint64) for _ in range(2))
    for entry in _rows_said(store, index):
        _weigh(said, *entry)
    for entry in _rows_held(store, index):
        _weigh(held, *entry)
    uneven = set(np.flatnonzero(said != held).tolist())
    if not uneven:
        return
    rows: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    digests: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    unknown: set[str] = set()
    for side, found in enumerate((_rows_said(store, index), _rows_held(store, index))):
        for recording_id, number, digest in found:
            if _number(recording_id) % _GROUPS in uneven:
                rows[recording_id][side] += number
                digests[recording_id][side] += int(digest or "0", 16)
                unknown |= {recording_id} if number and not digest else set()
    for recording_id, (wanted, there) in sorted(rows.items()):
        if wanted != there:
            yield f"recording {recording_id}: its index says {wanted} rows, its shards hold {there}"
        elif recording_id not in unknown and _differ(*digests[recording_id]):
            yield f"recording {recording_id}: its shards hold other rows than its index says"


def _differ(one: int, other: int) -> bool:
    return combine_digests([one]) != combine_digests([other])


def _weigh(sums: npt.NDArray[np.uint64], recording_id: str, rows: int, digest: str | None) -> None:
    number = _number(recording_id)
    group, weight = number % _GROUPS, (number | 1) * (rows + int(digest or "0", 16))
    sums[group] = (int(sums[group]) + weight) % (1 << 64)


def _number(recording_id: str) -> int:
    return int(fraction(recording_id) * (1 << 53))


def _rows_said(store: Store, index: str) -> Iterator[tuple[str, int, str | None]]:
    columns = ["recording_id", "rows", "rows_digest"]
    for batch in read_batches(store, index, "recordings", columns):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _rows_held(store: Store, index: str) -> Iterator[tuple[str, int, str]]:
    for shard in read_shards(store, index):
        yield from ((held.recording_id, held.rows, held.digest) for held in shard.recordings)


def _add_recordings(totals: Totals, store: Store, index: str) -> None:
    for batch in read_batches(store, index, "recordings", ["status", "split", "seconds"]):
        columns = (batch.column(name).to_pylist() for name in ("status", "split", "seconds"))
        durations: defaultdict[str, list[float]] = defaultdict(list)
        for status, split, seconds in zip(*columns, strict=True):
            totals.recordings[status] += 1
            if status in ("ok", "partial"):
                totals.seconds += seconds
                durations[split].append(seconds)
        for split, found in durations.items():
            content = totals.split(split)
            content.recordings += len(found)
            content.seconds += sum(found)
            content.durations += histogram(found, DURATION_EDGES_S)


def _add_shard(totals: Totals, shard: ShardSummary) -> None:
    content = totals.split(shard.split)
    content.rows += shard.rows
    content.shards += 1
    content.parquet_bytes += shard.parquet.size_bytes if shard.parquet else 0
    content.tfrecord_bytes += shard.tfrecord.size_bytes if shard.tfrecord else 0
    content.counter.add(shard.distribution)
    totals.null_labels |= set(shard.null_labels)


def training_split(splits: dict[str, Any]) -> str | None:
    """Name the split that statistics are taken of.

    >>> training_split({"test": 1, "train": 2}), training_split({"all": 1})
    ('train', 'all')
    """
    if "train" in splits or not splits:
        return "train" if splits else None
    return min(splits)


def _add_moments(totals: Totals, store: Store, index: str) -> None:
    train = training_split(totals.splits)
    for shard in ordered_shards(store, index):
        if shard.split == train:
            moments = shard.moments
            totals.moments = moments if totals.moments is None else totals.moments.merge(moments)
