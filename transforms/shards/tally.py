"""The statistics of a shard's rows, and of the rows of each of its recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from melmill.transforms.rows.distribution import DistributionCounter
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.normalization import valid_of
from melmill.transforms.rows.rows_digest import combine_digests, digest_text, rows_digest
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.summaries import RecordingRows

#: Columns that give a row's place in its recording.
_PLACE = ("chunk_index", "start_sample", "valid_samples")


@dataclass(slots=True)
class Tally:
    """The statistics of a shard's rows, counted while the rows are written."""

    rows: int = 0
    moments: dict[str, Moments] = field(default_factory=dict)
    recordings: dict[str, RecordingRows] = field(default_factory=dict)
    null_labels: set[str] = field(default_factory=set)
    distribution: DistributionCounter = field(default_factory=DistributionCounter)

    def count(self, batch: RowBatch, schema: RowSchema) -> None:
        """Add a row group to the statistics; frames and samples of padding are not counted."""
        self.rows += batch.rows
        for column in schema.features:
            values, before = batch.features[column.name], self.moments.get(column.name)
            moments = Moments.of(values, valid_of(batch, column))
            self.moments[column.name] = moments if before is None else before.merge(moments)
        for entry in held_recordings(batch, with_variants=schema.with_variants):
            known = self.recordings.get(entry.recording_id)
            self.recordings[entry.recording_id] = add_rows(known, entry) if known else entry
        labels = (label.name for label in schema.labels)
        self.null_labels |= {name for name in labels if None in batch.columns[name]}
        self.distribution.count(batch, schema.labels, with_variants=schema.with_variants)


def held_recordings(batch: RowBatch, *, with_variants: bool = False) -> Iterator[RecordingRows]:
    """Yield a summary of each run of consecutive rows of one recording in a batch.

    The peak is that of the recording, without the rows of its variants; −inf without other rows.
    """
    names = list(batch.columns["recording_id"])
    begins = [i for i in range(batch.rows) if not i or names[i] != names[i - 1]]
    for start, stop in pairwise([*begins, batch.rows]):
        part = slice(start, stop)
        columns = {name: batch.columns[name][part] for name in _PLACE}
        channel = np.asarray(batch.columns.get("channel", [0] * batch.rows)[part], np.int64)
        peaks = np.asarray(batch.columns["peak_dbfs"][part], np.float64)
        if with_variants:
            variant = np.asarray(batch.columns["variant"][part], np.int64)
            # A digest has one number for both, as before there were variants.
            channel, peaks = channel + (variant << 32), peaks[variant == 0]
        features = [values[part] for values in batch.features.values()]
        digest = rows_digest(channel=channel, features=features, **columns)
        peak_dbfs = float(peaks.max(initial=-np.inf))
        yield RecordingRows(names[start], stop - start, peak_dbfs, digest_text(digest))


def add_rows(one: RecordingRows, other: RecordingRows) -> RecordingRows:
    """Return the summary of two parts of a recording's rows together."""
    digests = [int(part.digest, 16) for part in (one, other) if part.digest]
    digest = digest_text(combine_digests(digests)) if len(digests) == 2 else ""
    peak_dbfs = max(one.peak_dbfs, other.peak_dbfs)
    return RecordingRows(one.recording_id, one.rows + other.rows, peak_dbfs, digest)


def is_same(held: RecordingRows | None, wanted: RecordingRows | None) -> bool:
    """Return whether a shard holds the rows of a recording that it must hold."""
    if held is None or wanted is None:
        return False
    return held.rows == wanted.rows and (held.digest == wanted.digest or not wanted.digest)
