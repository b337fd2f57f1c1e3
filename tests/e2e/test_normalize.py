"""Mel bands with mean 0 and deviation 1: in a view, and in each loader with three lines of code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.api import export
from melmill.pipelines.dataset import Dataset
from tests.e2e.rows import Rows, by_chunk, from_arrow, read_hugging_face
from tests.e2e.songs import Songs, make_songs
from tests.pipeline_runs import extract_here, melmill, melmill_json


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset whose songs are cut across several shards."""
    folder = tmp_path_factory.mktemp("parted")
    songs: Songs = make_songs(folder)
    settings = ("output.min_shards=40", "output.row_group_rows=3")
    extract_here(songs.table, folder / "dataset", *settings)
    return folder / "dataset"


@pytest.fixture(scope="module")
def stored_rows(many_shards: Path) -> Rows:
    return from_arrow(Dataset(many_shards).as_arrow().to_table())


def export_view(dataset: Path, output: Path, normalize: str) -> Rows:
    """Make a view for Hugging Face with the real command, and return its rows."""
    datasets = pytest.importorskip("datasets")
    command = ("--format", "hf", "--normalize", normalize, "--workers", "2")
    melmill_json("export", dataset, output, *command)
    assert f"normalised: {normalize}" in (output / "README.md").read_text()
    loaded = datasets.load_dataset(str(output), cache_dir=str(output.parent / "cache"))
    return read_hugging_face(loaded)


def standardize(mel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `mel`, standardised by the bands of `values` [bands, values] in double precision."""
    mean, std = values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64)
    return (mel - mean[:, None]) / np.maximum(std, 1e-5)[:, None]


def valid_mel(row: dict[str, Any]) -> np.ndarray:
    """Return the frames of a row that are not padding."""
    mel: np.ndarray = row["mel"][:, : row["valid_frames"]]
    return mel


# Values of up to 80 dB are rounded to float32 twice, then divided by deviations of at least 1 dB:
# 80 * 2**-23 * 2 = 2e-5.
TOLERANCE = 3e-5


def test_global_uses_the_bands_of_the_training_split(many_shards, stored_rows, tmp_path):
    exported = export_view(many_shards, tmp_path / "view", "global")
    training = [valid_mel(row) for row in stored_rows.values() if row["split"] == "train"]
    values = np.concatenate(training, axis=1)
    for key, row in stored_rows.items():
        expected = standardize(row["mel"], values)
        np.testing.assert_allclose(exported[key]["mel"], expected, atol=TOLERANCE)


@pytest.mark.slow
def test_per_chunk_uses_the_bands_of_the_chunk(many_shards, stored_rows, tmp_path):
    exported = export_view(many_shards, tmp_path / "view", "per_chunk")
    for key, row in stored_rows.items():
        expected = standardize(row["mel"], valid_mel(row))
        np.testing.assert_allclose(exported[key]["mel"], expected, atol=TOLERANCE)


@pytest.mark.slow
def test_per_recording_uses_the_bands_of_the_recording_in_all_its_shards(
    many_shards, stored_rows, tmp_path
):
    shards = Dataset(many_shards).as_arrow().get_fragments()
    shard_uris = [set(shard.to_table(columns=["uri"])["uri"].to_pylist()) for shard in shards]
    assert max(sum(row["uri"] in uris for uris in shard_uris) for row in stored_rows.values()) > 2
    exported = export_view(many_shards, tmp_path / "view", "per_recording")
    for song in {name for name, _ in stored_rows}:
        own = {key: row for key, row in stored_rows.items() if key[0] == song}
        values = np.concatenate(list(map(valid_mel, own.values())), axis=1)
        for key, row in own.items():
            expected = standardize(row["mel"], values)
            np.testing.assert_allclose(exported[key]["mel"], expected, atol=TOLERANCE)


def test_the_description_of_a_view_says_how_it_was_normalised(dataset, tmp_path):
    for format_name, file_name in (("tfds", "dataset_info.json"), ("numpy", "dataset.json")):
        export(dataset, tmp_path / format_name, format_name, normalize="per_chunk")
        assert "per_chunk" in (tmp_path / format_name / file_name).read_text()
    mel = np.load(next((tmp_path / "numpy").glob("*.mel.npy")))
    np.testing.assert_allclose(mel.mean(axis=2), 0, atol=TOLERANCE)


def test_an_unknown_normalisation_is_refused(dataset, tmp_path):
    result = melmill("export", dataset, tmp_path / "x", "--format", "hf", "--normalize", "batch")
    assert result.returncode == 2
    allowed = "none, global, per_chunk, per_recording"
    assert f"--normalize batch: unknown; allowed: {allowed}" in result.stderr


# Normalisation at load time


@pytest.fixture(scope="module")
def opened(dataset: Path) -> Dataset:
    return Dataset(dataset)


@pytest.fixture(scope="module")
def exported_rows(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Return the same rows after a global normalisation in the export."""
    return export_view(dataset, tmp_path_factory.mktemp("baked") / "view", "global")


def mean_and_std(opened: Dataset) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.array(opened.statistics[name], np.float32)[:, None] for name in ("mean", "std"))
    return mean, std


@pytest.mark.slow
def test_numpy_at_load_time_equals_the_export(opened, rows, exported_rows):
    mean, std = mean_and_std(opened)
    for key, row in rows.items():
        np.testing.assert_array_equal((row["mel"] - mean) / std, exported_rows[key]["mel"])


def test_tensorflow_at_load_time_equals_the_export(opened, exported_rows, tf):
    mean, std = mean_and_std(opened)
    data = opened.as_tf("test", ["mel", "uri", "chunk_index"])
    data = data.map(lambda row: {**row, "mel": (row["mel"] - mean) / std})
    loaded_rows = [row | {"uri": row["uri"].decode()} for row in data.as_numpy_iterator()]
    for key, row in by_chunk(loaded_rows).items():
        # TensorFlow may multiply by the reciprocal instead of a division.
        np.testing.assert_allclose(row["mel"], exported_rows[key]["mel"], rtol=1e-6, atol=1e-6)


def test_a_keras_layer_at_load_time_equals_the_export(opened, rows, exported_rows, tf):
    import keras

    mean, std = mean_and_std(opened)
    layer = keras.layers.Normalization(axis=1, mean=mean[:, 0], variance=std[:, 0] ** 2)
    keys = list(rows)
    actual = np.asarray(layer(np.stack([rows[key]["mel"] for key in keys])))
    expected = np.stack([exported_rows[key]["mel"] for key in keys])
    # Keras computes the square root of the squared deviation in float32.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_hugging_face_at_load_time_equals_the_export(opened, dataset, exported_rows, tmp_path):
    datasets = pytest.importorskip("datasets")
    mean, std = mean_and_std(opened)
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path)).with_format("numpy")
    loaded = loaded.map(lambda row: {"mel": (row["mel"] - mean) / std})
    for key, row in read_hugging_face(loaded).items():
        np.testing.assert_array_equal(row["mel"], exported_rows[key]["mel"])
