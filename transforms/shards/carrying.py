"""Features that are carried over from a snapshot, when a refresh computes only the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.spans import Span, SpanRows, span_rows
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.parquet import find_row_groups, read_rows
from melmill.transforms.rows.schema import RowBatch

#: Columns by which a row is recognised, and its levels.
_PLACE = ("chunk_index", "channel", "start_sample", "valid_samples")
_LEVELS = ("peak_dbfs", "rms_dbfs")


@dataclass(frozen=True, slots=True, eq=False)
class CarriedRows:
    """The rows of a span in the shards of a snapshot.

    Attributes
    ----------
    rows
        All columns except the features.
    places
        File, row group and number in the row group of each row, in the order of the rows.
    """

    rows: SpanRows
    places: list[tuple[str, int, int]]

    def read(self, job: ExtractJob) -> Iterator[RowBatch]:
        """Yield the unchanged features of the rows; a batch comes from one row group."""
        names = job.base.unchanged_features
        for (file_name, group), places in groupby(self.places, key=lambda place: place[:2]):
            numbers = [number for _, _, number in places]
            with job.store.reading_shard(file_name) as file:
                (batch,) = read_rows(file, [group], columns=names)
            yield batch.take(numbers)


def find_carried(span: Span, job: ExtractJob) -> CarriedRows | None:
    """Return the rows of a span in the job's snapshot; ``None`` if it does not hold all of them.

    Raises
    ------
    DatasetError
        A shard of the snapshot is missing or damaged.
    """
    recording = span.probed.recording
    if not job.base.unchanged_features or not recording.carried_from:
        return None
    found: dict[str, list[Any]] = {name: [] for name in (*_PLACE, *_LEVELS)}
    places: list[tuple[str, int, int]] = []
    for file_name in recording.carried_from:
        with job.store.reading_shard(file_name) as file:
            groups = find_row_groups(file, "recording_id", recording.recording_id)
            for group in groups:
                (batch,) = read_rows(file, [group], columns=("recording_id", *found))
                columns = batch.columns
                for number in _rows_of(span, columns):
                    places.append((file_name, group, number))
                    for name, values in found.items():
                        values.append(columns[name][number] if name in columns else 0)
    order = np.lexsort((found["channel"], found["chunk_index"]))
    arrays = {name: np.asarray(values)[order] for name, values in found.items()}
    peak_dbfs, rms_dbfs = (arrays[name].astype(np.float32) for name in _LEVELS)
    channels = count_channels(span.probed.audio.channels, job.features.channels)
    rows = span_rows(span, job.features, channels, peak_dbfs, rms_dbfs)
    if any(not np.array_equal(arrays[name], getattr(rows, name)) for name in _PLACE):
        return None
    return CarriedRows(rows, [places[number] for number in order])


def _rows_of(span: Span, columns: Any) -> npt.NDArray[np.intp]:
    names, index = np.array(columns["recording_id"]), np.asarray(columns["chunk_index"])
    own = names == span.probed.recording.recording_id
    within: npt.NDArray[np.intp] = np.flatnonzero(
        own & (index >= span.first_chunk) & (index < span.stop_chunk)
    )
    return within
