"""Features that are carried over from a snapshot, when a refresh computes only the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.features.channels import count_channels
from melmill.transforms.features.decoded_spans import Span
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


class CarriedError(DatasetError):
    """A feature cannot be read from a shard of the snapshot."""


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
        """Yield features of the rows, by their names; a batch comes from one row group.

        Raises
        ------
        CarriedError
            A shard is missing or damaged.
        UnavailableError
            The store does not answer at the moment.
        """
        for (shard, group), places in groupby(self.places, key=lambda place: place[:2]):
            try:
                batch = _row_group(shard, group, names)
            except UnavailableError:
                raise
            except DatasetError as error:
                raise CarriedError(str(error)) from error
            yield batch.take([number for _, _, number in places])


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
    if span.variant not in job.base.unchanged_variants:
        return None
    parts, places = [], list[tuple[_Shard, int, int]]()
    try:
        for file_name in recording.carried_from:
            shard = _Shard(job.store.root, file_name, job.store)
            own = _stored_rows(shard).of(recording.recording_id)
            index = own["chunk_index"]
            is_in_span = (index >= span.first_chunk) & (index < span.stop_chunk)
            own = own[is_in_span & (own["variant"] == span.variant)]
            parts.append(own)
            places += [(shard, *place) for place in zip(own["group"], own["row"], strict=True)]
    except UnavailableError:
        raise
    except DatasetError:
        return None
    stored = np.concatenate(parts)
    order = np.lexsort((stored["channel"], stored["chunk_index"]))
    stored = stored[order]
    channels = count_channels(span.probed.audio.channels, job.features.channels)
    rows = span_rows(span, job.features, channels, stored["peak_dbfs"], stored["rms_dbfs"])
    if any(not np.array_equal(stored[name], getattr(rows, name)) for name in _PLACE):
        return None
    return CarriedRows(rows, [places[number] for number in order])


#: A row of a shard: its place in the shard, and its columns; 40 bytes.
_ROW = np.dtype(
    [
        *((name, np.int32) for name in ("group", "row", "variant", "chunk_index", "channel")),
        ("start_sample", np.int64),
        ("valid_samples", np.int32),
        *((name, np.float32) for name in _LEVELS),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class _StoredRows:
    """The rows of a shard, sorted by recording, and the slice of each recording."""

    rows: npt.NDArray[np.void]
    slices: dict[str, slice]

    def of(self, recording_id: str) -> npt.NDArray[np.void]:
        return self.rows[self.slices.get(recording_id, slice(0))]


# The spans of a plan come from few shards, in their order; see ``pack_shards``.
@lru_cache(maxsize=2)
def _stored_rows(shard: _Shard) -> _StoredRows:
    numbers: dict[str, int] = {}
    parts, codes = [np.empty(0, _ROW)], [np.empty(0, np.int64)]
    with shard.store.reading_shard(shard.file_name) as file:
        columns = ("recording_id", "variant", *_PLACE, *_LEVELS)
        for group, batch in enumerate(read_rows(file, columns=columns)):
            names = batch.columns["recording_id"]
            rows = np.zeros(len(names), _ROW)
            rows["group"], rows["row"] = group, np.arange(len(names))
            for name in (*_PLACE, *_LEVELS):
                if name in batch.columns or name != "channel":
                    rows[name] = batch.columns[name]
            variant = batch.columns.get("variant")
            # Otherwise it is a label of this name.
            if isinstance(variant, np.ndarray) and variant.dtype == np.int32:
                rows["variant"] = variant
            parts.append(rows)
            codes.append(np.array([numbers.setdefault(name, len(numbers)) for name in names]))
    code = np.concatenate(codes).astype(np.int64)
    order = np.argsort(code, kind="stable")
    borders = np.searchsorted(code[order], np.arange(len(numbers) + 1)).tolist()
    slices = {name: slice(borders[n], borders[n + 1]) for name, n in numbers.items()}
    return _StoredRows(np.concatenate(parts)[order], slices)


@lru_cache(maxsize=2)
def _row_group(shard: _Shard, group: int, names: tuple[str, ...]) -> RowBatch:
    with shard.store.reading_shard(shard.file_name) as file:
        (batch,) = read_rows(file, [group], columns=names)
    return batch
