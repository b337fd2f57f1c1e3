"""Planned recordings: the chunks and the split of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from melmill.transforms.core.errors import (
    DAMAGE_CAUSES,
    Cause,
    RecordingError,
    Stage,
)
from melmill.transforms.core.records import AudioInfo, Failure, ProbedRecording, Recording
from melmill.transforms.features.channels import check_channels, count_channels
from melmill.transforms.features.chunks import count_chunks, resampled_length
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.splits import SplitSpec, assign_split, split_unit

#: Maximum time by which a segment may end after its recording: catalogues round times.
_ROUNDED_SECONDS = 0.5

#: Treatment of a recording that is damaged or cut off: it fails, or its intact start is kept.
Damaged = Literal["fail", "keep"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a recording (variant 0) or one of its variants is cut into chunks."""

    variant: int
    origin_sample: int
    samples: int
    chunks: int


@dataclass(frozen=True, slots=True)
class PlannedRecording:
    """A recording that can be used, with its split and its number of chunks (possibly zero).

    If the recipe's selection refuses the recording, ``deselected_by`` says what refused it
    (:meth:`~melmill.transforms.measures.expressions.Selection.refused_by`), and it has no chunk.
    ``split_unit`` is what stays in one split (:func:`~melmill.transforms.plan.splits.split_unit`).
    ``duplicate_of`` is the id of the recording of its group of duplicates that is kept; ``""`` for
    that recording itself, and for recordings without duplicates. ``variants`` has the first sample,
    the length and the number of chunks of each variant, as it is played. A recording without chunks
    has no variants.
    """

    probed: ProbedRecording
    split: str
    origin_sample: int
    samples: int
    chunks: int
    rows_per_chunk: int
    deselected_by: str = ""
    split_unit: str = ""
    duplicate_of: str = ""
    # Not part of the repr, from which the index's name is made.
    variants: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """Number of rows that the recording and its variants will have."""
        return sum(cut.chunks for cut in self.cuts()) * self.rows_per_chunk

    def cuts(self) -> Iterator[Cut]:
        """Yield how the recording and each of its variants are cut, where there are chunks."""
        if self.chunks:
            own = self.origin_sample, self.samples, self.chunks
            cuts = (Cut(number, *values) for number, values in enumerate((own, *self.variants)))
            yield from (cut for cut in cuts if cut.chunks)

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
    chunk = features.chunk
    # Both lengths are rounded to samples.
    if chunk.long == "fail" and stop - start > chunk.length + 1:
        seconds, most = (n / features.sample_rate_hz for n in (stop - start, chunk.length))
        message = f"{seconds:g} s, and chunk.seconds allows {most:g} s, because chunk.long is fail"
        raise RecordingError(Stage.PROBE, Cause.TOO_LONG, message)
    chunks = count_chunks(stop - start, chunk)
    if probed.damage and not chunks:
        raise _damage(probed.damage)
    return PlannedRecording(
        probed=probed,
        split=assign_split(probed.recording, split),
        origin_sample=start,
        samples=stop - start,
        chunks=chunks,
        rows_per_chunk=count_channels(audio.channels, features.channels),
        split_unit=split_unit(probed.recording, split),
        variants=tuple(_cut_variant(probed, features, v.speed) for v in features.variants),
    )


def _cut_variant(
    probed: ProbedRecording, features: FeatureSpec, speed: Fraction
) -> tuple[int, int, int]:
    """Return the first sample, the length and the number of chunks at a speed."""
    audio, rate_hz = probed.audio, features.sample_rate_hz
    whole = resampled_length(audio.frames, audio.sample_rate_hz * speed, rate_hz)
    start, stop = _bounds(probed, whole, rate_hz / speed)
    return start, stop - start, count_chunks(stop - start, features.chunk)


def _bounds(probed: ProbedRecording, samples: int, rate_hz: int | Fraction) -> tuple[int, int]:
    """Return the first sample and the end of the used part; damage may cut it shorter."""
    if probed.damage is None:
        return segment_bounds(probed.recording, samples, rate_hz)
    try:
        return segment_bounds(probed.recording, samples, rate_hz, math.inf)
    except RecordingError as error:
        raise _damage(probed.damage) from error


def _damage(failure: Failure) -> RecordingError:
    """Return the error for a recording that has no usable audio before its damage."""
    return RecordingError(failure.stage, failure.cause, failure.message)


def segment_bounds(
    recording: Recording,
    samples: int,
    rate_hz: int | Fraction,
    slack_seconds: float = _ROUNDED_SECONDS,
) -> tuple[int, int]:
    """Return the first sample and the end of a recording's segment, or of all of it.

    Parameters
    ----------
    recording
        Recording of the catalogue.
    samples, rate_hz
        Length of its file, in samples at a sample rate.
    slack_seconds
        How far the segment may go on behind the end of the file.

    Raises
    ------
    RecordingError
        With the cause ``bad_segment``: the file holds nothing of the segment, or not all of it.
    """
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
        f"a recording of {float(samples / rate_hz):.3f} s; correct the catalogue's start or end",
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
