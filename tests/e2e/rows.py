"""The rows that the twelve songs must have, and rows of any reader made comparable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.songs import SONGS

RATE_HZ, CHUNK = 22_050, 66_150
SHAPE = (128, 130)
#: Whole chunks of each song; a song shorter than one is padded.
CHUNKS = {name: max(1, int(seconds // 3)) for name, _, _, seconds, _, _ in SONGS}
SPLITS = Counter({"train": 0, "validation": 0, "test": 0})
for _name, _, _, _, _split, _ in SONGS:
    SPLITS[_split] += CHUNKS[_name]
SPLIT_OF = {name: split for name, _, _, _, split, _ in SONGS}

#: One row by name of song and number of chunk.
Rows = dict[tuple[str, int], dict[str, Any]]


def by_chunk(rows: list[dict[str, Any]]) -> Rows:
    found = {(Path(row["uri"]).name, int(row["chunk_index"])): row for row in rows}
    assert len(found) == len(rows)
    return found


def from_columns(columns: dict[str, Any], mel: np.ndarray) -> Rows:
    """Rows of columns that have been read, and of their spectrograms."""
    names = columns.keys() - {"mel"}
    rows = [{name: columns[name][i] for name in names} for i in range(len(mel))]
    return by_chunk([{**row, "mel": mel[i]} for i, row in enumerate(rows)])


def from_arrow(table: Any) -> Rows:
    table = table.combine_chunks()
    values = table["mel"].chunk(0).flatten().flatten().to_numpy()
    assert values.dtype == np.float32
    return from_columns(table.drop_columns(["mel"]).to_pydict(), values.reshape(-1, *SHAPE))


def assert_same_rows(found: Rows, wanted: Rows, *, but: tuple[str, ...] = ()) -> None:
    """Exactly the same values; the labels in `but` are compared by the caller."""
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[key]["mel"]), row["mel"])
        names = row.keys() - {"mel", *but}
        assert {name: found[key][name] for name in names} == {name: row[name] for name in names}


def as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [as_text(item) for item in value.tolist()]
    return value


def read_hugging_face(loaded: Any) -> Rows:
    """Every row of a ``DatasetDict``."""
    found: Rows = {}
    for split, part in loaded.items():
        mel = part.with_format("numpy")[:]["mel"]
        assert mel.dtype == np.float32
        columns = part.remove_columns("mel")[:] | {"split": [split] * len(mel)}
        found |= from_columns(columns, mel)
    return found
