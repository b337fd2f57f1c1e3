"""Tests of the distribution of rows: it equals NumPy's histograms and plain counting."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.rows import distribution
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.rows.distribution import (
    DURATION_EDGES_S,
    LEVEL_EDGES_DBFS,
    Distribution,
    DistributionCounter,
    histogram,
)
from melmill.transforms.rows.parquet import read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.snapshot.totals import add_up
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

LABELS = (LabelColumn("genre", "string"), LabelColumn("tags", "list<int64>"))


@given(st.lists(st.floats(-200, 50, width=32)))
def test_a_histogram_is_numpys(values: list[float]) -> None:
    # NumPy's last bin includes its upper edge. Here the last bin is infinite.
    edges = [-np.inf, *LEVEL_EDGES_DBFS, np.inf]
    assert histogram(values, LEVEL_EDGES_DBFS).tolist() == np.histogram(values, edges)[0].tolist()


def rows(genres: list[str | None]) -> RowBatch:
    """Return two rows of each recording; its tags are the code points of its genre's letters."""
    doubled = [genre for genre in genres for _ in range(2)]
    columns: dict[str, Any] = {
        "chunk_index": [0, 1] * len(genres),
        "peak_dbfs": [-3.0, float("-inf")] * len(genres),
        "rms_dbfs": [-20.0, float("-inf")] * len(genres),
        "genre": doubled,
        "tags": [None if g is None else [ord(letter) for letter in g] for g in doubled],
    }
    return RowBatch(columns, {"mel": np.zeros((len(doubled), 1, 1), np.float32)})


def counted(*batches: RowBatch) -> Distribution:
    counter = DistributionCounter()
    for batch in batches:
        counter.count(batch, LABELS)
    return counter.total()


GENRES = st.lists(st.none() | st.text(max_size=3), max_size=12)


@given(st.lists(GENRES, max_size=4))
def test_parts_add_up_to_the_whole(parts: list[list[str | None]]) -> None:
    sums = DistributionCounter()
    for part in parts:
        sums.add(counted(rows(part)))
    assert sums.total() == counted(rows([genre for part in parts for genre in part]))


@given(GENRES)
def test_classes_are_counted_by_rows_and_recordings(genres: list[str | None]) -> None:
    counts = {
        (count.column, count.value): (count.rows, count.recordings)
        for count in counted(rows(genres)).classes
    }
    expected: Counter[tuple[str, Any]] = Counter(("genre", genre) for genre in genres)
    for genre in genres:
        expected.update(("tags", tag) for tag in (set(map(ord, genre)) if genre else {None}))
    assert counts == {key: (2 * number, number) for key, number in expected.items()}


def test_a_label_of_too_many_values_has_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "MAX_CLASSES", 3)
    # No part alone has too many values.
    sums = DistributionCounter()
    for part in (["a", "b"], ["c", "d"], ["a"]):
        sums.add(counted(rows(list(part))))
    assert sums.total().many == ("genre", "tags")
    assert sums.total().classes == ()


def test_a_dataset_says_how_its_rows_are_distributed(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    lines = []
    for i in range(6):
        write_audio(songs / f"{i}.wav", noise(1.5 + i, 8000, i, channels=2) / (i + 1), 8000)
        genre = "\N{SNOWMAN}" if i % 2 else "jazz"
        split = "test" if i == 5 else "train"
        lines.append({"uri": f"{i}.wav", "genre": genre, "title": f"song {i}", "split": split})
    (songs / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = ["chunk.seconds=1", "audio.sample_rate_hz=8000", "mel.n_mels=8", "mel.n_fft=512"]
    settings += ["output.min_shards=4", "audio.channels=each"]
    result = extract_here(songs / "songs.jsonl", tmp_path / "dataset", *settings)

    store = Store(str(tmp_path / "dataset"))
    statistics = json.loads(store.read("statistics.json"))
    assert statistics["mean"] == result.snapshot.statistics["mean"]
    train = statistics["splits"]["train"]
    columns: dict[str, list[Any]] = {"rms_dbfs": [], "peak_dbfs": [], "genre": []}
    for path in (tmp_path / "dataset" / "split=train").iterdir():
        for batch in read_rows(path):
            for name, values in columns.items():
                values += list(batch.columns[name])
    for name in ("rms_dbfs", "peak_dbfs"):
        edges = [-np.inf, *train[name]["edges"], np.inf]
        assert train[name]["counts"] == np.histogram(columns[name], edges)[0].tolist()
    assert {c["value"]: c["rows"] for c in train["labels"]["genre"]} == Counter(columns["genre"])
    assert {c["value"]: c["recordings"] for c in train["labels"]["genre"]} == {
        "jazz": 3,
        "\N{SNOWMAN}": 2,
    }
    assert train["seconds_histogram"] == {
        "edges": list(DURATION_EDGES_S),
        "counts": np.histogram([1.5, 2.5, 3.5, 4.5, 5.5], [0, *DURATION_EDGES_S, np.inf])[
            0
        ].tolist(),
    }
    assert train["seconds"] == 17.5

    balance = statistics["balance"]["genre"]
    assert balance["classes"] == 2
    assert balance["missing"] == {"test": ["jazz"]}
    assert balance["largest_difference"]["split"] == "test"
    assert add_up(store, result.snapshot.index).split("test").distribution.many == ()
    card = store.read("README.md").decode()
    assert "genre: 2 classes; shares differ by at most 50.0 points" in card
    assert "test lacks 1: jazz" in card
