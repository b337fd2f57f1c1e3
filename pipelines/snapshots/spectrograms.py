"""The picture of a few stored spectrograms, which a dataset's card shows.

The same files give the same picture. Little is read: the first row group of some files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.parquet import read_rows
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.card_head import feature_entries
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.store.folders import Store

Floats = npt.NDArray[np.float32]

#: Number of spectrograms in a picture, each of another recording, and of files to look into.
_SPECTROGRAMS, _FILES = 4, 4
#: Largest row group that is read.
_MOST_BYTES = 64_000_000
#: Most rows and columns of a spectrogram in the picture, and fewest rows.
_MOST_ROWS, _MOST_COLUMNS, _FEWEST_ROWS = 128, 256, 96
#: Columns between two spectrograms.
_GAP = 8
#: Share of the values that are darker than the darkest colour: padding and digital silence.
_DARKEST = 0.02

_KINDS = ("mel", "stft", "pcen")


def draw_spectrograms(
    store: Store, names: Iterable[str], snapshot: Snapshot, schema: RowSchema
) -> bytes:
    """Return a PNG of the loudest chunks of a few recordings, side by side.

    Parameters
    ----------
    store, names
        Folder with Parquet files of rows, and their names; only the first are read.
    snapshot, schema
        Snapshot that the rows come from, and their columns.

    Returns
    -------
    bytes
        The picture; ``b""`` if no feature is a spectrogram, no file can be read, or what draws
        (``melmill[explore]``) is not installed.
    """
    try:
        from melmill.pipelines.sound.png import draw_levels, png_bytes
    except ImportError:
        return b""
    entries = feature_entries(snapshot)
    columns = [c for c in schema.features if c.has_bands and entries[c.name]["kind"] in _KINDS]
    chunks = _loudest_chunks(store, islice(names, _FILES), columns[0]) if columns else iter(())
    spectrograms = [_fitted(values) for values in islice(chunks, _SPECTROGRAMS)]
    if not spectrograms:
        return b""
    values = np.concatenate(spectrograms, axis=1)
    low, high = float(np.quantile(values, _DARKEST)), float(values.max())
    gap = np.full((len(values), _GAP), np.nan, np.float32)
    parts = [part for spectrogram in spectrograms for part in (gap, spectrogram)][1:]
    return png_bytes(draw_levels(np.concatenate(parts, axis=1), low, high))


def _loudest_chunks(store: Store, names: Iterable[str], column: FeatureColumn) -> Iterator[Floats]:
    """Yield the loudest of the first chunks of each recording: float32 [bands, frames]."""
    seen: set[str] = set()
    for name in names:
        try:
            with store.reading_shard(name) as file:
                columns, values = _first_rows(file, column)
        except DatasetError:
            continue  # validate reports it; a card without a picture is a good card
        recordings = list(columns["recording_id"])
        for recording in dict.fromkeys(recordings):
            rows = [row for row, other in enumerate(recordings) if other == recording]
            loudest = max(rows, key=lambda row: columns["rms_dbfs"][row])
            if recording not in seen and np.isfinite(values[loudest]).all():
                seen.add(recording)
                yield values[loudest]


def _first_rows(file: Any, column: FeatureColumn) -> tuple[dict[str, Any], Floats]:
    """Return the first row group of a shard; no rows if it is large."""
    rows = pq.read_metadata(file).row_group(0).num_rows
    if rows * column.row_bytes > _MOST_BYTES:
        return {"recording_id": []}, np.empty((0, 0), np.float32)
    names = ("recording_id", "rms_dbfs", column.name)
    (batch,) = read_rows(file, [0], columns=names)
    return dict(batch.columns), batch.features[column.name]


def _fitted(values: Floats) -> Floats:
    """Return a spectrogram in the size of the picture: neighbours averaged, or pixels repeated.

    >>> [_fitted(np.ones(shape, np.float32)).shape for shape in ((512, 3000), (40, 80))]
    [(128, 256), (120, 240)]
    """
    for axis, most in enumerate((_MOST_ROWS, _MOST_COLUMNS)):
        length = values.shape[axis]
        if length > most:
            borders = np.arange(most) * length // most
            counts = np.diff([*borders, length])
            sums = np.add.reduceat(values, borders, axis=axis)
            values = (sums / (counts if axis else counts[:, np.newaxis])).astype(np.float32)
    factor = max(1, min(-(-_FEWEST_ROWS // len(values)), _MOST_COLUMNS // values.shape[1]))
    return values.repeat(factor, axis=0).repeat(factor, axis=1)
