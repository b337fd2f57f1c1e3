"""The expected rows of the twelve songs, and a common form for the rows of all readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.songs import SONGS

RATE_HZ, CHUNK = 22_050, 66_150
SHAPE = (128, 130)
#: Number of chunks of each song; a song that is shorter than a chunk is padded.
CHUNKS = {name: max(1, int(seconds // 3)) for name, _, _, seconds, _, _ in SONGS}
SPLITS = Counter({"train": 0, "validation": 0, "test": 0})
for _name, _, _, _, _split, _ in SONGS:
    SPLITS[_split] += CHUNKS[_name]
SPLIT_OF = {name: split for name, _, _, _, split, _ in SONGS}

#: Rows by the song's name and the chunk's number.
Rows = dict[tuple[str, int], dict[str, Any]]


def by_chunk(rows: list[dict[str, Any]]) -> Rows:
    rows_by_chunk = {(Path(row["uri"]).name, int(row["chunk_index"])): row for row in rows}
    assert len(rows_by_chunk) == len(rows)
    return rows_by_chunk


def from_columns(columns: dict[str, Any], mel: np.ndarray) -> Rows:
    """Return rows from the columns and the spectrograms that a reader returned."""
    names = columns.keys() - {"mel"}
    rows = [{name: columns[name][i] for name in names} for i in range(len(mel))]
    return by_chunk([{**row, "mel": mel[i]} for i, row in enumerate(rows)])


def from_arrow(table: Any) -> Rows:
    table = table.combine_chunks()
    values = table["mel"].chunk(0).flatten().flatten().to_numpy()
    assert values.dtype == np.float32
    return from_columns(table.drop_columns(["mel"]).to_pydict(), values.reshape(-1, *SHAPE))


def assert_same_rows(actual: Rows, expected: Rows, *, ignore: tuple[str, ...] = ()) -> None:
    """Check that all values are equal. The caller compares the columns in `ignore`."""
    assert actual.keys() == expected.keys()
    for key, row in expected.items():
        np.testing.assert_array_equal(np.asarray(actual[key]["mel"]), row["mel"])
        names = row.keys() - {"mel", *ignore}
        assert {name: actual[key][name] for name in names} == {name: row[name] for name in names}


def as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [as_text(item) for item in value.tolist()]
    return value


def read_hugging_face(loaded: Any) -> Rows:
    """Return every row of a ``DatasetDict``."""
    rows: Rows = {}
    for split, dataset in loaded.items():
        mel = dataset.with_format("numpy")[:]["mel"]
        assert mel.dtype == np.float32
        columns = dataset.remove_columns("mel")[:] | {"split": [split] * len(mel)}
        rows |= from_columns(columns, mel)
    return rows
