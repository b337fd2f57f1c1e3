"""Mel bands brought to mean 0 and deviation 1: in a view, and by each loader's three lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melmill.pipelines.dataset import Dataset
from tests.e2e.rows import Rows, by_chunk, from_arrow, read_hugging_face
from tests.e2e.songs import Songs, make_songs
from tests.pipeline_runs import extract_here, melmill, melmill_json


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in which songs lie in several shards."""
    folder = tmp_path_factory.mktemp("parted")
    songs: Songs = make_songs(folder)
    settings = ("output.min_shards=40", "output.row_group_rows=3")
    extract_here(songs.table, folder / "dataset", *settings)
    return folder / "dataset"


@pytest.fixture(scope="module")
def stored(parted: Path) -> Rows:
    return from_arrow(Dataset(parted).as_arrow().to_table())


def view(dataset: Path, output: Path, normalize: str) -> Rows:
    """The rows of a view for Hugging Face, made by the real command."""
    datasets = pytest.importorskip("datasets")
    command = ("--format", "hf", "--normalize", normalize, "--workers", "2")
    melmill_json("export", dataset, output, *command)
    assert f"normalised: {normalize}" in (output / "README.md").read_text()
    loaded = datasets.load_dataset(str(output), cache_dir=str(output.parent / "cache"))
    return read_hugging_face(loaded)


def standardized(mel: np.ndarray, over: np.ndarray) -> np.ndarray:
    """By NumPy in double precision; `over` is [bands, values]."""
    mean, std = over.mean(axis=1, dtype=np.float64), over.std(axis=1, dtype=np.float64)
    return (mel - mean[:, None]) / np.maximum(std, 1e-5)[:, None]


# Values of up to 80 dB, rounded to float32 twice before they are divided by deviations of a dB
# or more: 80 * 2**-23 * 2 = 2e-5.
TOLERANCE = 3e-5


def test_global_is_by_the_training_splits_bands(parted, stored, tmp_path):
    found = view(parted, tmp_path / "view", "global")
    training = [row["mel"] for row in stored.values() if row["split"] == "train"]
    over = np.concatenate(training, axis=1)
    for key, row in stored.items():
        wanted = standardized(row["mel"], over)
        np.testing.assert_allclose(found[key]["mel"], wanted, atol=TOLERANCE)


def test_per_chunk_is_by_the_chunks_own_bands(parted, stored, tmp_path):
    found = view(parted, tmp_path / "view", "per_chunk")
    for key, row in stored.items():
        wanted = standardized(row["mel"], row["mel"])
        np.testing.assert_allclose(found[key]["mel"], wanted, atol=TOLERANCE)


def test_per_recording_is_by_the_recordings_bands_whatever_shards_it_lies_in(
    parted, stored, tmp_path
):
    shards = Dataset(parted).as_arrow().get_fragments()
    lies_in = [set(shard.to_table(columns=["uri"])["uri"].to_pylist()) for shard in shards]
    assert max(sum(row["uri"] in held for held in lies_in) for row in stored.values()) > 2
    found = view(parted, tmp_path / "view", "per_recording")
    for song in {name for name, _ in stored}:
        mine = {key: row["mel"] for key, row in stored.items() if key[0] == song}
        over = np.concatenate(list(mine.values()), axis=1)
        for key, mel in mine.items():
            wanted = standardized(mel, over)
            np.testing.assert_allclose(found[key]["mel"], wanted, atol=TOLERANCE)


def test_what_is_said_of_a_view_says_how_it_was_normalised(dataset, tmp_path):
    for form, file in (("tfds", "dataset_info.json"), ("numpy", "dataset.json")):
        command = ("--format", form, "--normalize", "per_chunk", "--workers", "1")
        melmill_json("export", dataset, tmp_path / form, *command)
        assert "per_chunk" in (tmp_path / form / file).read_text()
    mel = np.load(next((tmp_path / "numpy").glob("*.mel.npy")))
    np.testing.assert_allclose(mel.mean(axis=2), 0, atol=TOLERANCE)


def test_an_unknown_normalisation_is_refused(dataset, tmp_path):
    done = melmill("export", dataset, tmp_path / "x", "--format", "hf", "--normalize", "batch")
    assert done.returncode == 2
    allowed = "none, global, per_chunk, per_recording"
    assert f"--normalize batch: unknown; allowed: {allowed}" in done.stderr


# At load time


@pytest.fixture(scope="module")
def opened(dataset: Path) -> Dataset:
    return Dataset(dataset)


@pytest.fixture(scope="module")
def baked(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the second pass makes of the same rows."""
    return view(dataset, tmp_path_factory.mktemp("baked") / "view", "global")


def bands(opened: Dataset) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.array(opened.statistics[name], np.float32)[:, None] for name in ("mean", "std"))
    return mean, std


def test_numpy_at_load_time_equals_the_second_pass(opened, rows, baked):
    mean, std = bands(opened)
    for key, row in rows.items():
        np.testing.assert_array_equal((row["mel"] - mean) / std, baked[key]["mel"])


def test_tensorflow_at_load_time_equals_the_second_pass(opened, baked, tf):
    mean, std = bands(opened)
    data = opened.as_tf("test", ["mel", "uri", "chunk_index"])
    data = data.map(lambda row: {**row, "mel": (row["mel"] - mean) / std})
    found = [row | {"uri": row["uri"].decode()} for row in data.as_numpy_iterator()]
    for key, row in by_chunk(found).items():
        # TensorFlow may multiply by the reciprocal.
        np.testing.assert_allclose(row["mel"], baked[key]["mel"], rtol=1e-6, atol=1e-6)


def test_a_keras_layer_at_load_time_equals_the_second_pass(opened, rows, baked, tf):
    import keras

    mean, std = bands(opened)
    layer = keras.layers.Normalization(axis=1, mean=mean[:, 0], variance=std[:, 0] ** 2)
    keys = list(rows)
    found = np.asarray(layer(np.stack([rows[key]["mel"] for key in keys])))
    wanted = np.stack([baked[key]["mel"] for key in keys])
    # The root of the square of a deviation, in float32.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_hugging_face_at_load_time_equals_the_second_pass(opened, dataset, baked, tmp_path):
    datasets = pytest.importorskip("datasets")
    mean, std = bands(opened)
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path)).with_format("numpy")
    loaded = loaded.map(lambda row: {"mel": (row["mel"] - mean) / std})
    for key, row in read_hugging_face(loaded).items():
        np.testing.assert_array_equal(row["mel"], baked[key]["mel"])
