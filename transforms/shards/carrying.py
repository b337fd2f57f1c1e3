"""Features that are carried over from a snapshot, when a refresh computes only the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.span_chunks import Span
from melmill.transforms.features.spans import SpanRows, span_rows
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.parquet import read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.folders import Store

#: Columns by which a row is recognised, and its levels.
_PLACE = ("chunk_index", "channel", "start_sample", "valid_samples")
_LEVELS = ("peak_dbfs", "rms_dbfs")


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard of the snapshot; it is the same whatever the options of its store are."""

    root: str
    file_name: str
    store: Store = field(compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class CarriedRows:
    """The rows of a span in the shards of a snapshot.

    Attributes
    ----------
    rows
        All columns except the features.
    places
        Shard, row group and number in the row group of each row, in the order of the rows.
    """

    rows: SpanRows
    places: list[tuple[_Shard, int, int]]

    def read(self, names: tuple[str, ...]) -> Iterator[RowBatch]:
        """Yield features of the rows, by their names; a batch comes from one row group."""
        for (shard, group), places in groupby(self.places, key=lambda place: place[:2]):
            yield _row_group(shard, group, names).take([number for _, _, number in places])


def find_carried(span: Span, job: ExtractJob) -> CarriedRows | None:
    """Return the rows of a span in the job's snapshot.

    The result is ``None`` if no feature is carried over, if the snapshot does not hold all rows of
    the span, or if its shards cannot be used: then all features are computed.

    Raises
    ------
    UnavailableError
        The store does not answer at the moment.
    """
    recording = span.probed.recording
    if not job.base.unchanged_features or not recording.carried_from:
        return None
    stored: list[tuple[tuple[Any, ...], tuple[_Shard, int, int]]] = []
    try:
        for file_name in recording.carried_from:
            shard = _Shard(job.store.root, file_name, job.store)
            own = _rows_by_recording(shard).get(recording.recording_id, ())
            stored += [(values, (shard, group, row)) for group, row, values in own]
    except UnavailableError:
        raise
    except DatasetError:
        return None
    within = [row for row in stored if span.first_chunk <= row[0][0] < span.stop_chunk]
    within.sort(key=lambda row: row[0][:2])
    names = (*_PLACE, *_LEVELS)
    columns = {name: [values[i] for values, _ in within] for i, name in enumerate(names)}
    channels = count_channels(span.probed.audio.channels, job.features.channels)
    peak_dbfs, rms_dbfs = (np.array(columns[name], np.float32) for name in _LEVELS)
    rows = span_rows(span, job.features, channels, peak_dbfs, rms_dbfs)
    if any(not np.array_equal(columns[name], getattr(rows, name)) for name in _PLACE):
        return None
    return CarriedRows(rows, [place for _, place in within])


# The spans of a plan come from few shards, in their order; see ``pack_shards``.
@lru_cache(maxsize=2)
def _rows_by_recording(shard: _Shard) -> dict[str, list[tuple[int, int, tuple[Any, ...]]]]:
    """Return row group, number and columns of each row of a shard, by its recording."""
    rows = defaultdict(list)
    with shard.store.reading_shard(shard.file_name) as file:
        batches = read_rows(file, columns=("recording_id", *_PLACE, *_LEVELS))
        for group, batch in enumerate(batches):
            columns = {"channel": [0] * len(batch.columns["recording_id"]), **batch.columns}
            values = zip(*(columns[name] for name in (*_PLACE, *_LEVELS)), strict=True)
            named = zip(columns["recording_id"], values, strict=True)
            for number, (name, row) in enumerate(named):
                rows[name].append((group, number, row))
    return dict(rows)


@lru_cache(maxsize=2)
def _row_group(shard: _Shard, group: int, names: tuple[str, ...]) -> RowBatch:
    with shard.store.reading_shard(shard.file_name) as file:
        (batch,) = read_rows(file, [group], columns=names)
    return batch
