"""The plan: which chunks of which recordings go into which shard, before anything is decoded.

A plan is a value. The same recordings with the same configuration give the same plan, in
whatever order they are listed. A plan's name is its digest, so a resumed run finds the shards
that it has already written.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from melmill.transforms.core.errors import (
    DAMAGE_CAUSES,
    CatalogueError,
    Cause,
    RecordingError,
    Stage,
)
from melmill.transforms.core.naming import digest, fraction
from melmill.transforms.core.records import AudioInfo, Failure, ProbedRecording, Recording
from melmill.transforms.decode.media import seeks_exactly
from melmill.transforms.features.channels import check_channels, count_channels
from melmill.transforms.features.chunks import count_chunks, resampled_length
from melmill.transforms.features.spans import Span
from melmill.transforms.features.spec import FeatureSpec

#: Number of recordings that are planned together, in one worker's memory.
RECORDINGS_PER_BUCKET = 10_000

#: Compressed size of log-mels as a share of their float32 size, measured with zstd-3 and
#: BYTE_STREAM_SPLIT.
_COMPRESSED_SHARE = 0.75
_BYTES_BESIDE_MEL = 60

#: Maximum time by which a segment may end after its recording: catalogues round times.
_ROUNDED_SECONDS = 0.5


#: Treatment of a recording that is damaged or cut off: it fails, or its intact start is kept.
Damaged = Literal["fail", "keep"]


def check_split_name(name: str) -> str:
    """Return the name, or raise ``ValueError`` if it is not allowed as the name of a split.

    The name becomes part of folder names, and Hugging Face ``datasets`` must accept it.

    >>> check_split_name("fold_1")
    'fold_1'
    """
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", name):
        raise ValueError("must be ASCII letters, digits and _, 64 at the most, and not 'all'")
    return name


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """The rule that divides recordings into training, validation and test data.

    Attributes
    ----------
    fractions
        ``(split, share)`` pairs; the shares sum to one.
    by
        Unit that stays in one split: each ``recording``, or all recordings with the same value
        in the column ``group``. ``catalogue`` uses the catalogue's column ``split``. ``auto``
        uses that column if it exists, else ``recording``.
    group
        Label column for ``by: group``.
    seed
        Seed of the random assignment; another seed gives another division.
    """

    fractions: tuple[tuple[str, float], ...] = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
    by: Literal["auto", "recording", "group", "catalogue"] = "auto"
    group: str | None = None
    seed: int = 0


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
class PlannedRecording:
    """A recording that can be used, with its split and its number of chunks (possibly zero)."""

    probed: ProbedRecording
    split: str
    origin_sample: int
    samples: int
    chunks: int
    rows_per_chunk: int

    @property
    def rows(self) -> int:
        """Number of rows that the recording will have."""
        return self.chunks * self.rows_per_chunk

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as flat values: the names of nested classes would take a third of the bytes.

        There are millions of these records.
        """
        probed = self.probed
        values = (*_values(probed.recording), *_values(probed.audio), probed.damage)
        return _unpickle, (*values, *_values(self)[1:])


def _values(record: Any) -> list[Any]:
    return [getattr(record, name) for name in record.__slots__]


def _unpickle(*values: Any) -> PlannedRecording:
    middle = len(Recording.__slots__)
    end = middle + len(AudioInfo.__slots__)
    recording, audio = Recording(*values[:middle]), AudioInfo(*values[middle:end])
    return PlannedRecording(ProbedRecording(recording, audio, values[end]), *values[end + 1 :])


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


def plan_recording(
    probed: ProbedRecording, features: FeatureSpec, split: SplitSpec, max_seconds: float
) -> PlannedRecording:
    """Return the plan of a recording: its used samples, its chunks and its split.

    Raises
    ------
    RecordingError
        If the recording cannot be used: ``too_long``, ``bad_segment``, ``missing_channel``, or
        the cause of its damage.
    CatalogueError
        If the catalogue gives no valid split or group for the recording.
    """
    audio = probed.audio
    check_channels(audio.channels, features.channels)
    whole = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    start, stop = _bounds(probed, whole, features.sample_rate_hz)
    if stop - start > max_seconds * features.sample_rate_hz:
        message = (
            f"{(stop - start) / features.sample_rate_hz:.0f} s, "
            f"and limits.max_duration_hours allows {max_seconds:.0f} s"
        )
        raise RecordingError(Stage.PROBE, Cause.TOO_LONG, message)
    chunks = count_chunks(stop - start, features.chunk)
    if probed.damage and not chunks:
        raise _damage(probed.damage)
    return PlannedRecording(
        probed=probed,
        split=assign_split(probed.recording, split),
        origin_sample=start,
        samples=stop - start,
        chunks=chunks,
        rows_per_chunk=count_channels(audio.channels, features.channels),
    )


def _bounds(probed: ProbedRecording, samples: int, rate_hz: int) -> tuple[int, int]:
    """Return the first sample and the end of the used part; damage may cut it shorter."""
    if probed.damage is None:
        return _segment(probed.recording, samples, rate_hz, _ROUNDED_SECONDS)
    try:
        return _segment(probed.recording, samples, rate_hz, math.inf)
    except RecordingError as error:
        raise _damage(probed.damage) from error


def _damage(failure: Failure) -> RecordingError:
    """Return the error for a recording that has no usable audio before its damage."""
    return RecordingError(failure.stage, failure.cause, failure.message)


def _segment(
    recording: Recording, samples: int, rate_hz: int, slack_seconds: float
) -> tuple[int, int]:
    start = round((recording.start_seconds or 0) * rate_hz)
    end = recording.end_seconds
    requested_stop = samples if end is None else round(end * rate_hz)
    stop = min(samples, requested_stop)
    if start < stop >= requested_stop - slack_seconds * rate_hz:
        return start, stop
    what = "holds nothing of" if start >= stop else "goes on behind the end of"
    raise RecordingError(
        Stage.PROBE,
        Cause.BAD_SEGMENT,
        f"the segment from {recording.start_seconds or 0:g} s to "
        f"{'the end' if end is None else f'{end:g} s'} {what} "
        f"a recording of {samples / rate_hz:.3f} s; correct the catalogue's start or end",
    )


def read_again(recording: Recording, failure: Failure, damaged: Damaged) -> ProbedRecording | None:
    """Return the recording to plan again after a failure; ``None`` if the failure is final.

    If a complete decode gives another length than the header, the decode is right. If a part
    is damaged or missing, the audio before the damage may be kept.
    """
    if failure.audio is None:
        return None
    if failure.cause is Cause.LENGTH_MISMATCH:
        return ProbedRecording(recording, failure.audio)
    if damaged == "keep" and failure.cause in DAMAGE_CAUSES:
        return ProbedRecording(recording, failure.audio, failure)
    return None


def assign_split(recording: Recording, spec: SplitSpec) -> str:
    """Return the split of a recording, which depends only on the recording, group and seed.

    A recording therefore keeps its split while the catalogue grows. For each split, a number
    with an exponential distribution is drawn and divided by the split's share; the split with
    the smallest result wins. When shares change, a recording moves from split A to split B
    only if B's share grew relative to A's. No rule that does not know the earlier division
    moves fewer recordings in the worst case (Bavarian et al., "Optimality of Correlated
    Sampling Strategies", 2020).

    >>> whole = Recording("id", "/a/song.wav", "song.wav")
    >>> assign_split(whole, SplitSpec(fractions=(("train", 1.0),)))
    'train'

    Raises
    ------
    CatalogueError
        If the column that decides has no valid value for the recording.
    """
    if spec.by == "catalogue" or (spec.by == "auto" and recording.split is not None):
        if recording.split is None:
            raise CatalogueError(
                f"{recording.origin}: split: no value; "
                "split.by: catalogue needs a value in every row"
            )
        return _named_by_catalogue(recording, recording.split)
    unit = _split_unit(recording, spec)

    def draw(pair: tuple[str, float]) -> float:
        name, share = pair
        return -math.log1p(-fraction("split", str(spec.seed), name, unit)) / share

    return min(spec.fractions, key=draw)[0]


def _named_by_catalogue(recording: Recording, name: str) -> str:
    try:
        return check_split_name(name)
    except ValueError as error:
        raise CatalogueError(f"{recording.origin}: split: {name!r}: {error}") from None


def _split_unit(recording: Recording, spec: SplitSpec) -> str:
    """Return a key that all recordings share which must be in the same split."""
    if spec.by != "group":
        return recording.relative_uri
    value = dict(recording.labels).get(spec.group or "")
    if value is None:
        where = recording.origin or recording.uri
        raise CatalogueError(
            f"{where}: {spec.group}: no value; split.group needs a value for every recording"
        )
    return f"group:{value}"


def count_buckets(totals: SplitTotals) -> int:
    """Return the number of buckets in which a split is planned.

    >>> count_buckets(SplitTotals(recordings=10_001, rows=1))
    2
    """
    return max(1, -(-totals.recordings // RECORDINGS_PER_BUCKET))


def row_bytes(features: FeatureSpec) -> int:
    """Return the estimated size in bytes of a row in a Parquet shard."""
    n_mels, frames = features.shape
    return int(4 * n_mels * frames * _COMPRESSED_SHARE) + _BYTES_BESIDE_MEL


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
    to get more shards.

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
    capacity = -(-sum(planned.rows for planned in whole) // max(1, shards))
    pieces = [
        piece
        for planned in whole
        for piece in _cut(planned, _capacity(planned, capacity, full_rows), seed)
    ]
    for members in _deal(pieces, shards):
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
    number = min(planned.chunks, -(-planned.rows // max(1, capacity)))
    borders = [planned.chunks * i // number for i in range(number + 1)]
    for first, stop in pairwise(borders):
        span = Span(planned.probed, planned.origin_sample, planned.samples, first, stop)
        order = order_of(seed, planned.probed.recording.recording_id, first)
        yield _Piece(order, span.chunks * planned.rows_per_chunk, planned.split, span)


def order_of(seed: int, recording_id: str, first_chunk: int) -> float:
    """Return the number in [0, 1) by which the pieces in a shard are sorted."""
    return fraction("order", str(seed), recording_id, str(first_chunk))


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
    return repr(replace(span, probed=replace(span.probed, recording=recording)))
