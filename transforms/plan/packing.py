"""Packing: which rows of which recordings go into which shard."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Gt

from melmill.transforms.core.errors import (
    CatalogueError,
)
from melmill.transforms.core.naming import digest, fraction
from melmill.transforms.decode.decoders import seeks_exactly
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.recordings import PlannedRecording

#: Number of recordings that are planned together, in one worker's memory.
RECORDINGS_PER_BUCKET = 10_000

#: Compressed size of log-mels as a share of their float32 size, measured with zstd-3 and
#: BYTE_STREAM_SPLIT.
_COMPRESSED_SHARE = 0.75

_BYTES_BESIDE_FEATURES = 60


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """The size of shards, and the order of recordings in them.

    Attributes
    ----------
    target_bytes
        Target size of a Parquet shard.
    min_shards
        Minimum number of shards in the dataset, if there are enough chunks: workers and
        loaders divide the shards among themselves.
    seed
        Seed of the order; another seed gives another order.
    """

    target_bytes: Annotated[int, Gt(0)] = 256 * 2**20
    min_shards: Annotated[int, Ge(1)] = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SplitTotals:
    """The number of recordings and rows in a split; totals of workers can be added up."""

    recordings: int = 0
    rows: int = 0

    def __add__(self, other: SplitTotals) -> SplitTotals:
        """Return the sum of two parts of a split."""
        return SplitTotals(self.recordings + other.recordings, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The plan of one shard, the unit of work: everything that the shard's bytes depend on.

    Attributes
    ----------
    name
        Digest of the split, the spans, the feature configuration and the run.
    split
        Split of all rows of the shard.
    spans
        Spans of recordings, in the order of the shard's rows.
    """

    name: str
    split: str
    spans: tuple[Span, ...] = field(repr=False)


def packed_with(planned: PlannedRecording) -> str:
    """Return the name of the shard that a recording is carried over from, or else its id.

    Recordings of one bucket are packed together; a bucket is drawn from this name.
    """
    recording = planned.probed.recording
    return recording.carried_from[0] if len(recording.carried_from) == 1 else recording.recording_id


def count_buckets(totals: SplitTotals) -> int:
    """Return the number of buckets in which a split is planned.

    >>> count_buckets(SplitTotals(recordings=10_001, rows=1))
    2
    """
    return max(1, -(-totals.recordings // RECORDINGS_PER_BUCKET))


def row_bytes(features: FeatureSpec) -> int:
    """Return the estimated size in bytes of a row in a Parquet shard."""
    size = sum(column.row_bytes for column in features.columns)
    return int(size * _COMPRESSED_SHARE) + _BYTES_BESIDE_FEATURES


def count_shards(totals: SplitTotals, all_rows: int, row_size: int, spec: ShardSpec) -> Fraction:
    """Return how many shards a split should have, as a fraction that its buckets share.

    >>> count_shards(SplitTotals(10, 800), 1_000, 1_000, ShardSpec(target_bytes=100_000))
    Fraction(8, 1)
    >>> count_shards(SplitTotals(10, 800), 1_000, 1_000, ShardSpec(min_shards=100))
    Fraction(80, 1)
    """
    by_size = Fraction(totals.rows * row_size, spec.target_bytes)
    by_number = Fraction(spec.min_shards * totals.rows, max(1, all_rows))
    return max(by_size, by_number)


def pack_shards(
    recordings: Iterable[PlannedRecording],
    shards: int,
    features: FeatureSpec,
    seed: int,
    run_id: str,
    full_rows: int = 1,
) -> Iterator[ShardPlan]:
    """Yield plans of shards with nearly equal numbers of rows, for one bucket's recordings.

    Recordings longer than a shard are cut at chunk borders. The pieces are dealt out, the
    largest first, each to the shard with the fewest rows. The order within a shard is a seeded
    shuffle. If a decoder cannot seek in a recording exactly, it decodes every piece from the
    recording's start. Such a recording is cut only if it is larger than a full shard, and not
    to get more shards. Recordings whose features are carried over stay together as they are in
    the snapshot's shards.

    Parameters
    ----------
    recordings
        All recordings of one split and bucket, in any order.
    shards
        Number of shards to make, if there are enough chunks.
    features, run_id
        Feature configuration and name of the run; both are part of the plan's name.
    seed
        Seed of the order.
    full_rows
        Number of rows in a shard of the target size.
    """
    ordered = sorted(recordings, key=lambda planned: planned.probed.recording.recording_id)
    _check_unique(ordered)
    whole = [planned for planned in ordered if planned.rows]
    rest = [planned for planned in whole if len(planned.probed.recording.carried_from) != 1]
    all_rows, rows = (sum(planned.rows for planned in group) for group in (whole, rest))
    shards = -(-shards * rows // max(1, all_rows))
    capacity = -(-rows // max(1, shards))
    pieces = [
        piece
        for planned in rest
        for piece in _cut(planned, _capacity(planned, capacity, full_rows), seed)
    ]
    for members in (*_keep_together(whole, seed, full_rows), *_deal(pieces, shards)):
        if members:
            split, spans = members[0].split, tuple(piece.span for piece in members)
            yield ShardPlan(name_plan(split, spans, features, run_id), split, spans)


def _capacity(planned: PlannedRecording, capacity: int, full_rows: int) -> int:
    return capacity if seeks_exactly(planned.probed.audio) else max(capacity, full_rows)


def _check_unique(ordered: list[PlannedRecording]) -> None:
    for first, second in pairwise(planned.probed.recording for planned in ordered):
        if first.recording_id == second.recording_id:
            raise CatalogueError(f"{first.uri} is listed twice: {first.origin} and {second.origin}")


@dataclass(frozen=True, slots=True)
class _Piece:
    order: float
    rows: int
    split: str
    span: Span


def _cut(planned: PlannedRecording, capacity: int, seed: int) -> Iterator[_Piece]:
    for cut in planned.cuts():
        rows, variant = cut.chunks * planned.rows_per_chunk, cut.variant
        number = min(cut.chunks, -(-rows // max(1, capacity)))
        borders = [cut.chunks * i // number for i in range(number + 1)]
        for first, stop in pairwise(borders):
            where = cut.origin_sample, cut.samples, first, stop, variant
            span = Span(planned.probed, *where)
            order = order_of(seed, planned.probed.recording.recording_id, first, variant)
            yield _Piece(order, span.chunks * planned.rows_per_chunk, planned.split, span)


def order_of(seed: int, recording_id: str, first_chunk: int, variant: int = 0) -> float:
    """Return the number in [0, 1) by which the pieces in a shard are sorted."""
    more = [str(variant)] if variant else []
    return fraction("order", str(seed), recording_id, str(first_chunk), *more)


def _keep_together(
    recordings: Iterable[PlannedRecording], seed: int, full_rows: int
) -> Iterator[list[_Piece]]:
    """Yield the pieces of each shard from which features are carried over, in the shard's order.

    So each row group of the shard is read once. If the rows are more than a full shard has, they
    are divided evenly.
    """
    by_file: defaultdict[str, list[_Piece]] = defaultdict(list)
    for planned in recordings:
        if len(planned.probed.recording.carried_from) == 1:
            (file_name,) = planned.probed.recording.carried_from
            by_file[file_name] += _cut(planned, max(1, full_rows), seed)
    for _, pieces in sorted(by_file.items()):
        all_rows = sum(piece.rows for piece in pieces)
        most = -(-all_rows // -(-all_rows // max(1, full_rows)))
        members, rows = list[_Piece](), 0
        for piece in sorted(pieces, key=lambda piece: piece.order):
            if members and rows + piece.rows > most:
                yield members
                members, rows = [], 0
            members.append(piece)
            rows += piece.rows
        yield members


def _deal(pieces: list[_Piece], shards: int) -> list[list[_Piece]]:
    dealt: list[list[_Piece]] = [[] for _ in range(max(1, shards))]
    least = [(0, i) for i in range(len(dealt))]
    for piece in sorted(pieces, key=lambda piece: (-piece.rows, piece.order)):
        rows, shard = least[0]
        dealt[shard].append(piece)
        heapq.heapreplace(least, (rows + piece.rows, shard))
    return [sorted(members, key=lambda piece: piece.order) for members in dealt]


def name_plan(split: str, spans: Iterable[Span], features: FeatureSpec, run_id: str) -> str:
    """Return a plan's name: a digest of everything that the shard's rows depend on, and the run."""
    return digest(split, features.digest(), run_id, *(_span_key(span) for span in spans))


def _span_key(span: Span) -> str:
    # The rows do not contain the place of a recording in the catalogue.
    recording = replace(span.probed.recording, origin="")
    text = repr(replace(span, probed=replace(span.probed, recording=recording)))
    return f"{text} variant {span.variant}" if span.variant else text
