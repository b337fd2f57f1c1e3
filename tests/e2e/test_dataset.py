"""A snapshot that is opened in Python has the same rows, in arrays of the declared types."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from deltalake import DeltaTable

from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store
from tests.e2e.rows import SHAPE, SPLITS, as_text, assert_same_rows, by_chunk, from_arrow
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

CORE = ("recording_id", "uri", "chunk_index", "start_sample", "valid_samples", "sample_rate_hz")


@pytest.fixture(scope="module")
def opened(dataset) -> Dataset:
    return Dataset(dataset)


def test_a_dataset_describes_its_rows_and_columns(opened, dataset):
    assert opened.rows == SPLITS
    assert opened.shape == SHAPE
    assert opened.version == 0
    assert opened.columns["genre"] == "string"
    assert opened.columns["tags"] == "list<string>"
    assert opened.configuration["chunk"]["seconds"] == 3
    statistics = json.loads((dataset / "statistics.json").read_text())
    assert statistics == opened.statistics | {"_index": statistics["_index"]}


def test_the_commit_itself_holds_the_statistics(opened, dataset):
    committed = json.loads(DeltaTable(dataset).history(1)[0]["melmill"])["statistics"]
    assert {key: committed[key] for key in ("mean", "std", "min", "max")}.items() <= (
        opened.statistics.items()
    )
    assert committed["balance"] == opened.statistics["balance"]
    for split, complete in opened.statistics["splits"].items():
        brief = committed["splits"][split]
        assert brief["labels"]["genre"] == complete["labels"]["genre"]
        assert {**brief, "labels": None} == {**complete, "labels": None}


def test_a_split_is_read_though_a_shard_of_another_is_missing(opened, dataset, tmp_path):
    copy = Dataset(shutil.copytree(dataset, tmp_path / "copy"))
    for split in ("test", "validation"):
        Path(copy.files(split)[0]).unlink()
    expected = from_arrow(opened.as_arrow("train").to_table())
    assert_same_rows(from_arrow(copy.as_arrow("train").to_table()), expected)
    with pytest.raises(FileNotFoundError, match="split=test/"):
        copy.as_arrow("test").to_table()


def test_arrow_reads_every_row_or_the_rows_of_a_split(opened, rows):
    assert_same_rows(from_arrow(opened.as_arrow().to_table()), rows)
    for split in SPLITS:
        expected = {key: row for key, row in rows.items() if row["split"] == split}
        assert_same_rows(from_arrow(opened.as_arrow(split).to_table()), expected)


def test_files_are_the_files_of_the_snapshot(opened, dataset):
    for format_name, folder in (("parquet", "split=train"), ("tfrecord", "tfrecord/train")):
        names = [Path(name) for name in opened.files("train", format_name)]
        assert sorted(names) == sorted((dataset / folder).iterdir())


def test_tensorflow_gets_the_exact_values(opened, rows, tf):
    names = ["mel", *CORE, "peak_dbfs", "genre"]
    texts = []
    # One training song has no genre.
    for split, columns in {"train": names[:-1], "test": names}.items():
        data = opened.as_tf(split, columns)
        assert data.element_spec["mel"].shape == SHAPE
        assert data.cardinality() == SPLITS[split]
        examples = list(data.as_numpy_iterator())
        assert len(examples) == SPLITS[split]
        texts += [
            {name: as_text(value) for name, value in row.items() if name != "mel"}
            for row in examples
        ]
        for row, text in zip(examples, texts[-len(examples) :], strict=True):
            expected = rows[Path(text["uri"]).name, int(text["chunk_index"])]
            assert row["mel"].dtype == np.float32
            np.testing.assert_array_equal(row["mel"], expected["mel"])
            assert {name: text[name] for name in columns[1:]} == {
                name: expected[name] for name in columns[1:]
            }
    expected = [row for row in rows.values() if row["split"] in ("train", "test")]
    assert by_chunk([row | {"split": ""} for row in texts]).keys() == by_chunk(expected).keys()


def test_labels_that_every_row_has_are_read_by_default(opened, tf):
    assert set(opened.as_tf("test").element_spec) == {"mel", "valid_frames", "genre"}


def test_tensorflow_shuffles_batches_and_prefetches(opened, tf):
    data = opened.as_tf("train", ["mel"]).shuffle(64, seed=1).batch(4, drop_remainder=True)
    shapes = {batch["mel"].shape for batch in data.prefetch(1).as_numpy_iterator()}
    assert shapes == {(4, *SHAPE)}


@pytest.mark.parametrize(
    ("split", "columns", "message"),
    [
        ("dev", None, "no split 'dev'; there are: test, train, validation"),
        ("train", ["mel", "gender"], "no column 'gender'; there are: mel, recording_id"),
        ("train", ["mel", "year"], "label 'year' has no value in some rows of train"),
    ],
)
def test_a_missing_split_column_or_value_is_refused(opened, tf, split, columns, message):
    with pytest.raises(DatasetError, match=message):
        opened.as_tf(split, columns)


def test_a_dataset_without_tfrecord_files_says_how_to_get_them(songs, tmp_path, tf):
    extract_here(songs.path("a.wav"), tmp_path / "dataset")
    opened = Dataset(tmp_path / "dataset")
    (split,) = opened.rows
    with pytest.raises(DatasetError, match=r"not every shard has a tfrecord file; extract it"):
        opened.as_tf(split)


def test_a_folder_without_a_commit_is_no_dataset(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    shutil.rmtree(copy / "_delta_log")
    with pytest.raises(DatasetError, match="nothing was committed there"):
        Dataset(copy)
    with pytest.raises(DatasetError, match="nothing was committed there"):
        Dataset(tmp_path / "nowhere")


def test_opening_needs_no_beam():
    program = "import sys, melmill.pipelines.dataset; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tensorflow_needs_a_tfrecord_file_for_every_shard(tmp_path, tf):
    (tmp_path / "songs").mkdir()
    for seed in range(6):
        write_audio(tmp_path / "songs" / f"{seed}.wav", noise(3.0, 8000, seed), 8000)
    settings = ["split.fractions={train: 1}", "output.formats=[parquet,tfrecord]"]
    extract_here(tmp_path / "songs", tmp_path / "dataset", *settings)
    assert len(list(Dataset(tmp_path / "dataset").as_tf("train"))) == 6
    # Old shards keep their TFRecord files, and new shards get no such file.
    write_audio(tmp_path / "songs" / "new.wav", noise(3.0, 8000, 9), 8000)
    extract_here(tmp_path / "songs", tmp_path / "dataset", settings[0], overwrite=True)
    opened = Dataset(tmp_path / "dataset")
    assert opened.rows == {"train": 7}
    with pytest.raises(DatasetError, match="not every shard has a tfrecord file"):
        opened.as_tf("train")
    listed = json.loads((tmp_path / "dataset" / "tfrecord" / "files.json").read_text())
    assert listed.keys() == {"_index"}


def test_a_store_that_tensorflow_cannot_read_is_refused(dataset, tf):
    fsspec.filesystem("memory").put(str(dataset), "/moved", recursive=True)
    opened = Dataset(dataset)
    opened._store = Store("memory://moved")
    with pytest.raises(DatasetError, match="TensorFlow reads local files and gs://"):
        opened.as_tf("train")


def test_a_flipped_bit_is_found_while_a_shard_is_read(dataset, tmp_path):
    opened = Dataset(shutil.copytree(dataset, tmp_path / "copy"))
    shard = Path(opened.files("train")[0])
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        opened.as_arrow("train").to_table()
    assert opened.as_arrow("test").to_table().num_rows == SPLITS["test"]
