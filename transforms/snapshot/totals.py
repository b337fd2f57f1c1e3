"""The totals of a snapshot, added up from its index in bounded memory."""

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
#: Number of groups of recordings; the rows of each group are compared as one sum.
_GROUPS = 4096


@dataclass(slots=True)
class SplitContent:
    """The content of one split.

    Attributes
    ----------
    recordings, rows, shards, parquet_bytes, tfrecord_bytes
        Numbers of recordings, rows and shards, and sizes of the files.
    seconds
        Total length of the recordings.
    durations
        Number of recordings in each bin between
        :data:`~melmill.transforms.rows.distribution.DURATION_EDGES_S`.
    distribution
        Distribution of the rows.
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
        """Distribution of the rows."""
        return self.counter.total()


@dataclass(slots=True)
class Totals:
    """The totals of a snapshot: its content and its failures.

    Attributes
    ----------
    recordings
        Number of recordings by status: ``ok``, ``partial``, ``failed``, ``skipped``,
        ``deselected``, ``duplicate``, ``unwritten``.
    seconds
        Total length of the recordings that were used.
    splits
        Content of each split.
    failures
        Number of failures by cause.
    examples
        Some failures of each cause, as ``(uri, message)``.
    moments
        Moments of the training split (see :func:`training_split`) for each feature, by name; the
        first feature has the name ``""``.
    null_labels
        Label columns in which at least one row has no value.
    """

    recordings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    splits: dict[str, SplitContent] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    null_labels: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        """Number of rows in all splits."""
        return sum(content.rows for content in self.splits.values())

    @property
    def parquet_bytes(self) -> int:
        """Size of all Parquet files in bytes."""
        return sum(content.parquet_bytes for content in self.splits.values())

    @property
    def failure_ratio(self) -> float:
        """Share of the recordings that failed."""
        return self.recordings["failed"] / max(1, self.recordings.total())

    def split(self, name: str) -> SplitContent:
        """Return the content of a split; a new split is added."""
        return self.splits.setdefault(name, SplitContent())


def add_up(store: Store, index: str) -> Totals:
    """Return the totals of an index; raise ``DatasetError`` if the index is missing."""
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
    """Yield the shards with rows, always in the same order, so that sums have the same bits."""
    return (shard for shard in read_shards(store, index) if shard.rows)


def require_consistent(store: Store, index: str, files: Collection[str]) -> int:
    """Return the number of rows in an index that describes exactly these Parquet files.

    Raises
    ------
    DatasetError
        If the index or the Delta log lacks a part.
    """
    names: set[str] = set()
    shard_rows = recording_rows = 0
    for row in read_index(store, index, "shards", ["name", "split", "rows"]):
        shard_rows += row["rows"]
        if row["rows"]:
            names.add(f"split={row['split']}/part-{row['name']}.parquet")
    for batch in read_batches(store, index, "recordings", ["rows"]):
        recording_rows += sum(batch.column("rows").to_pylist())
    if names != set(files) or shard_rows != recording_rows:
        raise DatasetError(
            f"{store.root}: the Delta log names {len(files):,} shards; index/{index}/ describes "
            f"{len(names):,} shards with {shard_rows:,} rows, and recordings with "
            f"{recording_rows:,} rows: the log or the index is damaged. melmill history lists the "
            "versions; melmill rollback goes back to one of them"
        )
    return shard_rows


def require_whole(store: Store, index: str) -> int:
    """Return the number of rows in an index, after a check that its shards hold these rows.

    Raises
    ------
    DatasetError
        If rows of a recording are missing or repeated, or a recording was planned but no shard
        holds it.
    """
    differences = list(
        islice(chain(_unwritten(store, index), row_differences(store, index)), _EXAMPLES)
    )
    if differences:
        raise DatasetError(
            f"{store.root}/index/{index} contradicts itself: {'; '.join(differences)}; nothing was "
            "committed"
        )
    return sum(rows for _, rows, _ in _rows_of_recordings(store, index))


def _unwritten(store: Store, index: str) -> Iterator[str]:
    for batch in read_batches(store, index, "recordings", ["uri", "status"]):
        for uri, status in zip(*(batch.column(i).to_pylist() for i in range(2)), strict=True):
            if status == "unwritten":
                yield f"{uri} was planned, but no shard holds it"


def row_differences(store: Store, index: str) -> Iterator[str]:
    """Yield a message for each recording whose rows in shards differ from the index.

    Memory does not grow with the catalogue. First, sums over groups of recordings are compared,
    in which a digest of its id weighs each recording's rows. Then only groups that differ are
    compared recording by recording.
    """
    indexed, stored = (np.zeros(_GROUPS, np.uint64) for _ in range(2))
    for entry in _rows_of_recordings(store, index):
        _weigh(indexed, *entry)
    for entry in _rows_of_shards(store, index):
        _weigh(stored, *entry)
    uneven = set(np.flatnonzero(indexed != stored).tolist())
    if not uneven:
        return
    rows: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    digests: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    unknown: set[str] = set()
    sides = _rows_of_recordings(store, index), _rows_of_shards(store, index)
    for side, entries in enumerate(sides):
        for recording_id, number, digest in entries:
            if _number(recording_id) % _GROUPS in uneven:
                rows[recording_id][side] += number
                digests[recording_id][side] += int(digest or "0", 16)
                unknown |= {recording_id} if number and not digest else set()
    for recording_id, (indexed_rows, stored_rows) in sorted(rows.items()):
        if indexed_rows != stored_rows:
            yield (
                f"recording {recording_id}: the index says {indexed_rows} rows, "
                f"the shards hold {stored_rows}"
            )
        elif recording_id not in unknown and _differ(*digests[recording_id]):
            yield f"recording {recording_id}: the shards hold other rows than the index says"


def _differ(indexed: int, stored: int) -> bool:
    return combine_digests([indexed]) != combine_digests([stored])


def _weigh(sums: npt.NDArray[np.uint64], recording_id: str, rows: int, digest: str | None) -> None:
    """Add a recording's rows and digest to the sum of its group."""
    number = _number(recording_id)
    group, weight = number % _GROUPS, (number | 1) * (rows + int(digest or "0", 16))
    sums[group] = (int(sums[group]) + weight) % (1 << 64)


def _number(recording_id: str) -> int:
    return int(fraction(recording_id) * (1 << 53))


def _rows_of_recordings(store: Store, index: str) -> Iterator[tuple[str, int, str | None]]:
    columns = ["recording_id", "rows", "rows_digest"]
    for batch in read_batches(store, index, "recordings", columns):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _rows_of_shards(store: Store, index: str) -> Iterator[tuple[str, int, str]]:
    for shard in read_shards(store, index):
        yield from ((entry.recording_id, entry.rows, entry.digest) for entry in shard.recordings)


def _add_recordings(totals: Totals, store: Store, index: str) -> None:
    for batch in read_batches(store, index, "recordings", ["status", "split", "seconds"]):
        columns = (batch.column(name).to_pylist() for name in ("status", "split", "seconds"))
        durations: defaultdict[str, list[float]] = defaultdict(list)
        for status, split, seconds in zip(*columns, strict=True):
            totals.recordings[status] += 1
            if status in ("ok", "partial"):
                totals.seconds += seconds
                durations[split].append(seconds)
        for split, lengths in durations.items():
            content = totals.split(split)
            content.recordings += len(lengths)
            content.seconds += sum(lengths)
            content.durations += histogram(lengths, DURATION_EDGES_S)


def _add_shard(totals: Totals, shard: ShardSummary) -> None:
    content = totals.split(shard.split)
    content.rows += shard.rows
    content.shards += 1
    content.parquet_bytes += shard.parquet.size_bytes if shard.parquet else 0
    content.tfrecord_bytes += shard.tfrecord.size_bytes if shard.tfrecord else 0
    content.counter.add(shard.distribution)
    totals.null_labels |= set(shard.null_labels)


def training_split(splits: dict[str, Any]) -> str | None:
    """Return the split for the features' statistics: ``train`` if it exists, else the first name.

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
            add_moments(totals, shard)


def add_moments(totals: Totals, shard: ShardSummary) -> None:
    """Add the moments of a shard's features to the totals."""
    others = {feature.name: feature.moments for feature in shard.others}
    for name, moments in {"": shard.moments, **others}.items():
        before = totals.moments.get(name)
        totals.moments[name] = moments if before is None else before.merge(moments)
