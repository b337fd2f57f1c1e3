"""The plan: which chunks of which recordings go into which shard, before any is decoded.

A plan is a value. The same recordings under the same configuration give the same plan in
whatever order they are listed, and a plan's name is its digest: a shard that the same run has
made of it before need not be made again.
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

#: Recordings planned together, in one worker's memory.
RECORDINGS_PER_BUCKET = 10_000

#: Share of float32's size that log-mels keep under zstd-3 and BYTE_STREAM_SPLIT, measured.
_COMPRESSED_SHARE = 0.75
_BYTES_BESIDE_MEL = 60

#: How far behind a recording's end a segment may end: catalogues round.
_ROUNDED_SECONDS = 0.5


#: What becomes of a recording of which something is missing: it fails, or the rest is kept.
Damaged = Literal["fail", "keep"]


def check_split_name(name: str) -> str:
    """Give a split's name back, or raise ``ValueError`` where it cannot be one.

    It is part of folders' names, and Hugging Face ``datasets`` must take it, too.

    >>> check_split_name("fold_1")
    'fold_1'
    """
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", name):
        raise ValueError("must be ASCII letters, digits and _, 64 at the most, and not 'all'")
    return name


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How recordings are divided into training, validation and test data.

    Attributes
    ----------
    fractions
        ``(split, share)`` pairs that sum to one.
    by
        What is kept together: each ``recording``, or all recordings with the same value in
        the column ``group``; or ``catalogue``: what the catalogue's column ``split`` says.
        ``auto`` takes the catalogue's column where there is one, else ``recording``.
    group
        The label column that ``by: group`` looks at.
    seed
        Another seed, another division.
    """

    fractions: tuple[tuple[str, float], ...] = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
    by: Literal["auto", "recording", "group", "catalogue"] = "auto"
    group: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """How large shards are, and in which order recordings stand in them.

    Attributes
    ----------
    target_bytes
        Size of a Parquet shard to aim at.
    min_shards
        At least so many shards in the dataset, as far as there are chunks for them: shards
        are what workers and loaders divide among themselves.
    seed
        Another seed, another order.
    """

    target_bytes: Annotated[int, Gt(0)] = 256 * 2**20
    min_shards: Annotated[int, Ge(1)] = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PlannedRecording:
    """A recording that is known to give rows: its split, and how many."""

    probed: ProbedRecording
    split: str
    origin_sample: int
    samples: int
    chunks: int
    rows_per_chunk: int

    @property
    def rows(self) -> int:
        """Rows that the recording will have."""
        return self.chunks * self.rows_per_chunk

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat: nested classes' names are a third of the bytes, of millions of these."""
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
    """What a split holds in all; adds up over workers."""

    recordings: int = 0
    rows: int = 0

    def __add__(self, other: SplitTotals) -> SplitTotals:
        """Add two parts of a split."""
        return SplitTotals(self.recordings + other.recordings, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The unit of work: everything that a shard's bytes depend on.

    Attributes
    ----------
    name
        Digest of all the rest, of the feature configuration and of the run.
    split
        The split that all its rows belong to.
    spans
        In the order of the rows.
    """

    name: str
    split: str
    spans: tuple[Span, ...] = field(repr=False)


def plan_recording(
    probed: ProbedRecording, features: FeatureSpec, split: SplitSpec, max_seconds: float
) -> PlannedRecording:
    """Find how many chunks a recording has, and in which split they belong.

    Raises
    ------
    RecordingError
        ``too_long``, ``bad_segment``, ``missing_channel``.
    CatalogueError
        The catalogue's own division cannot be followed.
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
    """Give first and last sample of what is used; of a damaged recording, as far as it goes."""
    if probed.damage is None:
        return _segment(probed.recording, samples, rate_hz, _ROUNDED_SECONDS)
    try:
        return _segment(probed.recording, samples, rate_hz, math.inf)
    except RecordingError as error:
        raise _damage(probed.damage) from error


def _damage(failure: Failure) -> RecordingError:
    """Give the error of a recording that holds nothing before its damage."""
    return RecordingError(failure.stage, failure.cause, failure.message)


def _segment(
    recording: Recording, samples: int, rate_hz: int, slack_seconds: float
) -> tuple[int, int]:
    start = round((recording.start_seconds or 0) * rate_hz)
    end = recording.end_seconds
    asked = samples if end is None else round(end * rate_hz)
    stop = min(samples, asked)
    if start < stop >= asked - slack_seconds * rate_hz:
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
    """Give what a failed recording is planned as once more; ``None`` where it has failed.

    A decode that gives another length than the header, and lacks nothing, is right. Where
    something is damaged or missing, what is before that may be kept.
    """
    if failure.audio is None:
        return None
    if failure.cause is Cause.LENGTH_MISMATCH:
        return ProbedRecording(recording, failure.audio)
    if damaged == "keep" and failure.cause in DAMAGE_CAUSES:
        return ProbedRecording(recording, failure.audio, failure)
    return None


def assign_split(recording: Recording, spec: SplitSpec) -> str:
    """Find the split of a recording, from nothing but itself, its group and the seed.

    So it stays where it is while the catalogue grows. Splits race for it, each with an
    exponential time of its own, divided by its share: when shares change, a recording moves
    from one split to another only if the other's share grew in proportion to the first's, and
    no rule that knows no earlier division moves fewer in the worst case (Bavarian et al.,
    "Optimality of Correlated Sampling Strategies", 2020).

    >>> whole = Recording("id", "/a/song.wav", "song.wav")
    >>> assign_split(whole, SplitSpec(fractions=(("train", 1.0),)))
    'train'

    Raises
    ------
    CatalogueError
        The column that decides has no value for this recording.
    """
    if spec.by == "catalogue" or (spec.by == "auto" and recording.split is not None):
        if recording.split is None:
            raise CatalogueError(f"{recording.origin}: split: no value, and split.by is catalogue")
        return _named_by_catalogue(recording, recording.split)
    kept = _kept_together(recording, spec)

    def arrival(pair: tuple[str, float]) -> float:
        name, share = pair
        return -math.log1p(-fraction("split", str(spec.seed), name, kept)) / share

    return min(spec.fractions, key=arrival)[0]


def _named_by_catalogue(recording: Recording, name: str) -> str:
    try:
        return check_split_name(name)
    except ValueError as error:
        raise CatalogueError(f"{recording.origin}: split: {name!r}: {error}") from None


def _kept_together(recording: Recording, spec: SplitSpec) -> str:
    if spec.by != "group":
        return recording.relative_uri
    value = dict(recording.labels).get(spec.group or "")
    if value is None:
        where = recording.origin or recording.uri
        raise CatalogueError(f"{where}: {spec.group}: no value, and split.group divides by it")
    return f"group:{value}"


def count_buckets(totals: SplitTotals) -> int:
    """Count the buckets in which a split is planned.

    >>> count_buckets(SplitTotals(recordings=10_001, rows=1))
    2
    """
    return max(1, -(-totals.recordings // RECORDINGS_PER_BUCKET))


def row_bytes(features: FeatureSpec) -> int:
    """Estimate the bytes of a row in a Parquet shard."""
    n_mels, frames = features.shape
    return int(4 * n_mels * frames * _COMPRESSED_SHARE) + _BYTES_BESIDE_MEL


def count_shards(totals: SplitTotals, all_rows: int, row_size: int, spec: ShardSpec) -> Fraction:
    """Find how many shards a split should have, as a fraction that its buckets share.

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
    """Pack one bucket's recordings into shards of nearly equal numbers of rows.

    Recordings longer than a shard are cut at chunk borders; the pieces are dealt out, the
    largest first, each to the shard that has the fewest rows; the order within a shard is
    a seeded shuffle. A recording of which every piece is decoded from the start is cut
    only as far as the size of a shard demands, not for the sake of more shards.

    Parameters
    ----------
    recordings
        All of one split and bucket, in any order.
    shards
        How many to make, as far as there are chunks for them.
    features, run_id
        Feature configuration and run; part of the plan's name.
    seed
        Of the order.
    full_rows
        Rows of a shard of the size aimed at.
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
    for one, other in pairwise(planned.probed.recording for planned in ordered):
        if one.recording_id == other.recording_id:
            raise CatalogueError(f"{one.uri} is listed twice: {one.origin} and {other.origin}")


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
    """Give a piece of a recording its place among the others of a shard."""
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
    """Name a plan by the digest of everything that its shard's rows depend on, and of the run."""
    return digest(split, features.digest(), run_id, *(_span_key(span) for span in spans))


def _span_key(span: Span) -> str:
    # Where the catalogue mentions a recording is not in its rows.
    recording = replace(span.probed.recording, origin="")
    return repr(replace(span, probed=replace(span.probed, recording=recording)))
