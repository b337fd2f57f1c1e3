"""The dataset card is correct, and Hugging Face's loader follows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from melmill.pipelines.extract import Extraction
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.distribution import ClassCount, Distribution
from melmill.transforms.rows.schema import LabelColumn, RowSchema
from melmill.transforms.snapshot.card import (
    band_statistics,
    brief_statistics,
    list_files,
    statistics,
    write_card,
)
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.snapshot.totals import SplitContent, Totals
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here, melmill_json

SPLITS = {"train": "abc", "fold_1": "de"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Extraction]:
    """Extract two splits, a list label, a missing label and a failure, in both formats."""
    folder = tmp_path_factory.mktemp("card")
    rows = []
    for split, names in SPLITS.items():
        for i, name in enumerate(names):
            signals.write_audio(folder / f"{name}.wav", signals.song(2.5, 8000, seed=i), 8000)
            tags = ["x", "y"] if i else None
            rows.append({"uri": f"{name}.wav", "split": split, "stars": i / 2, "tags": tags})
    rows.append({"uri": "missing.wav", "split": "train", "stars": 0.0, "tags": []})
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    extraction = extract_here(
        folder / "songs.jsonl",
        folder / "out",
        "audio.sample_rate_hz=8000",
        "chunk.seconds=1",
        "mel.n_mels=16",
        "mel.n_fft=512",
        "output.min_shards=3",
        "output.formats=[parquet, tfrecord]",
        "limits.max_failure_ratio=0.5",
    )
    return Store(str(folder / "out")), extraction


def head(store: Store) -> dict[str, Any]:
    _, front_matter, _ = re.split(r"^---$", store.read("README.md").decode(), flags=re.MULTILINE)
    metadata: dict[str, Any] = yaml.safe_load(front_matter)
    return metadata


@pytest.fixture(scope="module")
def loaded(dataset: tuple[Store, Extraction], tmp_path_factory: pytest.TempPathFactory) -> Any:
    datasets = pytest.importorskip("datasets")
    cache = tmp_path_factory.mktemp("cache")
    return datasets.load_dataset(dataset[0].root, cache_dir=str(cache))


def test_the_head_names_exactly_the_snapshots_files(dataset: tuple[Store, Extraction]) -> None:
    store, extraction = dataset
    (config,) = head(store)["configs"]
    listed = {entry["split"]: entry["path"] for entry in config["data_files"]}
    assert listed == list_files(store, extraction.snapshot)[0]
    stored = {name for name in store.names() if name.endswith(".parquet") and "index" not in name}
    assert {name for names in listed.values() for name in names} == stored


def test_hugging_face_finds_the_splits(loaded: Any, dataset: tuple[Store, Extraction]) -> None:
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 6, "fold_1": 4}


def test_hugging_face_finds_the_shape(loaded: Any) -> None:
    import datasets

    features = loaded["train"].features
    assert features["mel"] == datasets.Array2D((16, 16), "float32")
    mel = loaded["train"].with_format("numpy")[:]["mel"]
    assert (mel.shape, mel.dtype) == ((6, 16, 16), np.float32)


def test_hugging_face_finds_the_rows(loaded: Any, dataset: tuple[Store, Extraction]) -> None:
    from melmill.transforms.rows.parquet import read_rows

    store, extraction = dataset
    stored_mels = []
    for name in list_files(store, extraction.snapshot)[0]["fold_1"]:
        with store.open(name) as file:
            stored_mels += [batch.features["mel"] for batch in read_rows(file)]
    loaded_mels = loaded["fold_1"].with_format("numpy")[:]["mel"]
    np.testing.assert_array_equal(loaded_mels, np.concatenate(stored_mels))


def test_hugging_face_finds_the_labels(loaded: Any) -> None:
    rows = loaded["fold_1"].select_columns(["stars", "tags"])
    labels = {(row["stars"], tuple(row["tags"] or ())) for row in rows}
    assert labels == {(0.0, ()), (0.5, ("x", "y"))}


def test_the_text_says_what_failed(dataset: tuple[Store, Extraction]) -> None:
    text = dataset[0].read("README.md").decode()
    assert "1 recordings failed and 0 were too short" in text
    assert "| fold_1 | 2 | 4 |" in text


def test_statistics_are_those_of_the_training_rows(
    dataset: tuple[Store, Extraction], loaded: Any
) -> None:
    stored = json.loads(dataset[0].read("statistics.json"))
    mel = loaded["train"].with_format("numpy")[:]["mel"].astype(np.float64)
    assert stored["split"] == "train"
    np.testing.assert_allclose(stored["mean"], mel.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(stored["std"], mel.std(axis=(0, 2)), rtol=1e-5)
    assert (stored["min"], stored["max"]) == (mel.min(), mel.max())


def test_totals_of_nothing_have_no_statistics() -> None:
    assert band_statistics(Totals()) == {}
    assert statistics(Totals()) == {"splits": {}, "balance": {}}


def test_a_commit_leaves_out_labels_of_many_classes() -> None:
    classes = [ClassCount("title", str(number), 1, 1) for number in range(21)]
    classes += [ClassCount("key", key, 10, 10) for key in "CD"]
    split = SplitContent()
    split.counter.add(Distribution(classes=tuple(classes)))
    full, brief = (
        summarise(Totals(splits={"train": split})) for summarise in (statistics, brief_statistics)
    )
    assert set(full["balance"]) == {"title", "key"}
    assert set(brief["balance"]) == set(brief["splits"]["train"]["labels"]) == {"key"}
    assert len(brief["splits"]["train"]["labels"]["key"]) == 2


def test_tfrecord_files_are_listed_by_split(dataset: tuple[Store, Extraction]) -> None:
    store, _ = dataset
    listed = json.loads(store.read("tfrecord/files.json"))
    assert listed.pop("_index") == require_snapshot(store).index
    assert set(listed) == set(SPLITS)
    assert all(store.size(name) for names in listed.values() for name in names)
    assert store.size("tfrecord/features.json")


def test_the_card_is_written_the_same_way_again(dataset: tuple[Store, Extraction]) -> None:
    store, extraction = dataset
    before = _card(store)
    schema = RowSchema(
        (FeatureColumn("mel", (16, 16), valid="valid_frames"),),
        (LabelColumn("stars", "double"), LabelColumn("tags", "list<string>")),
    )
    write_card(store, require_snapshot(store), extraction.totals, schema)
    assert _card(store) == before


def _card(store: Store) -> dict[str, bytes]:
    names = ("README.md", "statistics.json", "tfrecord/files.json", "tfrecord/features.json")
    return {name: store.read(name) for name in names}


def test_the_recipe_in_the_card_gives_the_same_files(
    dataset: tuple[Store, Extraction], tmp_path: Path
) -> None:
    store, extraction = dataset
    recipe = write_recipe(store, tmp_path)
    again = extract_here(extraction.snapshot.catalogue, tmp_path / "out", recipe=str(recipe))
    assert again.snapshot.features == extraction.snapshot.features
    assert again.snapshot.configuration == extraction.snapshot.configuration
    other = Store(str(tmp_path / "out"))
    assert shards_in(other) == shards_in(store)


def write_recipe(store: Store, folder: Path) -> Path:
    """Write the recipe that is in the card of a dataset."""
    card = store.read("README.md").decode()
    path = folder / "recipe.yaml"
    path.write_text(card.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    return path


def shards_in(store: Store) -> list[bytes]:
    return sorted(store.read(name) for name in store.names() if "part-" in name)


@pytest.mark.slow
def test_the_command_takes_the_recipe_in_the_card(
    dataset: tuple[Store, Extraction], tmp_path: Path
) -> None:
    store, extraction = dataset
    recipe = write_recipe(store, tmp_path)
    catalogue, again = extraction.snapshot.catalogue, tmp_path / "out"
    melmill_json("extract", catalogue, again, "--config", recipe)
    assert shards_in(Store(str(again))) == shards_in(store)


@pytest.mark.slow
def test_the_code_for_tfrecords_runs(dataset: tuple[Store, Extraction]) -> None:
    pytest.importorskip("tensorflow")
    text = dataset[0].read("README.md").decode()
    blocks = text.split("```python\n")[1:]
    (code,) = [block.partition("```")[0] for block in blocks if "tensorflow" in block]
    scope: dict[str, Any] = {}
    exec(code.replace("DATASET", dataset[0].root), scope)
    rows = list(scope["rows"].as_numpy_iterator())
    assert len(rows) in (4, 6)
    assert {row["mel"].shape for row in rows} == {(16, 16)}


@pytest.fixture
def code(dataset: tuple[Store, Extraction]) -> str:
    text = dataset[0].read("README.md").decode()
    return text.split("```python\n")[1].split("```")[0].replace("DATASET", dataset[0].root)


def test_the_code_for_delta_tables_runs(code: str) -> None:
    pytest.importorskip("polars")
    without_datasets, _, _ = code.partition("import datasets")
    exec(without_datasets, {})
