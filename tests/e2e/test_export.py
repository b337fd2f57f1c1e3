"""A view in another ecosystem's layout has the same rows when that ecosystem's readers read it."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.api import export
from melmill.pipelines.export import default_name
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.export_shards import list_export_shards
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from melmill.transforms.views import formats
from melmill.transforms.views.exports import ExportJob, export_shard
from tests.e2e.rows import (
    SHAPE,
    SPLITS,
    as_text,
    assert_same_rows,
    by_chunk,
    read_hugging_face,
)
from tests.e2e.songs import LABELS, SETTINGS
from tests.pipeline_runs import extract_here, melmill, melmill_json

FORMATS = ("tfds", "hf", "webdataset", "arrayrecord", "numpy")


@pytest.fixture(scope="module")
def views(dataset, tmp_path_factory) -> Path:
    """Export every view, one with the real command, and return the folder of views."""
    folder = tmp_path_factory.mktemp("views")
    by_command, *others = FORMATS
    summary = melmill_json("export", dataset, folder / by_command, "--format", by_command)
    assert summary["rows"] == SPLITS
    for format_name in others:
        assert export(dataset, folder / format_name, format_name).rows == SPLITS
    for format_name in FORMATS:
        assert not (folder / format_name / "staging").exists()
    return folder


def refusal(dataset: Path, view: Path, format_name: str) -> str:
    """Export in this process, where nothing has to start; return the message of the error."""
    with pytest.raises(DatasetError) as raised:
        export(dataset, view, format_name)
    return str(raised.value)


def split_of(name: str) -> str:
    return Path(name).name.split("-")[0]


@pytest.mark.slow
def test_tensorflow_datasets_reads_the_same_splits(rows, views, tf):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(views / "tfds")
    assert builder.info.name == "dataset"
    actual = []
    for split, number in SPLITS.items():
        assert builder.info.splits[split].num_examples == number
        examples = tfds.as_numpy(builder.as_dataset(split=split))
        actual += [
            {name: as_text(value) for name, value in row.items()} | {"split": split}
            for row in examples
        ]
    actual = [row | {"mel": np.float32(row["mel"])} for row in actual]
    assert_same_rows(by_chunk(actual), rows, ignore=LABELS)
    for key, row in by_chunk(actual).items():
        for name in {"genre", "year", "live"} - {
            label for label in LABELS if rows[key][label] is None
        }:
            assert row[name] == rows[key][name]
        assert row["tags"] == (rows[key]["tags"] or [])
    half = tfds.as_numpy(builder.as_dataset(split="train[:50%]"))
    assert len(list(half)) == round(SPLITS["train"] / 2)


def test_hugging_face_reads_the_same_splits_whole_and_as_a_stream(rows, views, tmp_path):
    datasets = pytest.importorskip("datasets")
    names = sorted(path.name for path in (views / "hf" / "data").iterdir())
    assert all(name.split("-of-")[1].startswith("0000") for name in names)
    loaded = datasets.load_dataset(str(views / "hf"), cache_dir=str(tmp_path))
    assert loaded["train"].features["mel"] == datasets.Array2D(SHAPE, "float32")
    assert_same_rows(read_hugging_face(loaded), rows)
    streamed = datasets.load_dataset(str(views / "hf"), streaming=True)
    for split, number in SPLITS.items():
        examples = list(streamed[split])
        assert len(examples) == number
        for row in examples:
            expected = rows[Path(row["uri"]).name, row["chunk_index"]]
            np.testing.assert_array_equal(np.float32(row["mel"]), expected["mel"])


def test_a_view_in_the_same_bytes_takes_no_space(dataset, views):
    for shard in (views / "hf" / "data").iterdir():
        assert shard.stat().st_nlink == 2
    for shard in (views / "tfds").glob("*.tfrecord-*"):
        assert shard.stat().st_nlink == 2


def test_numpy_maps_the_same_rows_into_memory(rows, views):
    about = json.loads((views / "numpy" / "dataset.json").read_text())
    actual = []
    for split, content in about["splits"].items():
        arrays = [name for name in content["files"] if name.endswith(".npy")]
        for name in arrays:
            mel = np.load(views / "numpy" / name, mmap_mode="r")
            assert isinstance(mel, np.memmap)
            text = (views / "numpy" / name.replace(".mel.npy", ".jsonl")).read_text("utf-8")
            lines = [json.loads(line) for line in text.splitlines()]
            assert len(lines) == len(mel)
            actual += [
                row | {"mel": values, "split": split}
                for row, values in zip(lines, mel, strict=True)
            ]
        assert {split_of(name) for name in arrays} == {split}
    assert_same_rows(by_chunk(actual), rows)


def test_webdataset_tars_hold_the_same_rows(rows, views):
    actual = []
    for path in sorted((views / "webdataset").glob("*.tar")):
        with tarfile.open(path) as tar:
            parts = {member.name: tar.extractfile(member) for member in tar}
        # The two members of a row must be neighbours: WebDataset finds rows that way.
        keys = [name.split(".", 1) for name in parts]
        assert [key for key, _ in keys[::2]] == [key for key, _ in keys[1::2]]
        with tarfile.open(path) as tar:
            for key in dict.fromkeys(key for key, _ in keys):
                row = json.loads(tar.extractfile(f"{key}.json").read())
                mel = np.load(io.BytesIO(tar.extractfile(f"{key}.mel.npy").read()))
                actual.append(row | {"mel": mel, "split": split_of(path.name)})
    assert_same_rows(by_chunk(actual), rows)


def test_webdataset_reads_the_same_rows(rows, views):
    webdataset = pytest.importorskip("webdataset")
    for split, number in SPLITS.items():
        urls = sorted(str(path) for path in (views / "webdataset").glob(f"{split}-*.tar"))
        examples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        assert len(examples) == number
        for row in examples:
            expected = rows[Path(row["json"]["uri"]).name, row["json"]["chunk_index"]]
            assert row["mel.npy"].dtype == np.float32
            np.testing.assert_array_equal(row["mel.npy"], expected["mel"])
            assert row["json"]["genre"] == expected["genre"]


def test_grain_reads_the_same_rows_by_number(rows, views):
    sources = pytest.importorskip("grain.sources")
    for split, number in SPLITS.items():
        names = sorted(map(str, (views / "arrayrecord").glob(f"*-{split}.array_record-*")))
        source = sources.ArrayRecordDataSource(names)
        assert len(source) == number
        for i in reversed(range(number)):
            row = parse_example(source[i])
            expected = rows[Path(row["uri"][0].decode()).name, row["chunk_index"][0]]
            np.testing.assert_array_equal(row["mel"], expected["mel"].ravel())


def test_tensorflow_datasets_gives_array_records_by_number(rows, views, tf):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(views / "arrayrecord")
    for split, number in SPLITS.items():
        source = builder.as_data_source(split=split)
        assert len(source) == number
        for i in reversed(range(number)):
            row = {name: as_text(value) for name, value in source[i].items() if name != "mel"}
            expected = rows[Path(row["uri"]).name, row["chunk_index"]]
            mel = source[i]["mel"]
            assert mel.dtype == np.float32
            np.testing.assert_array_equal(mel, expected["mel"])
            assert (row["tags"] or []) == (expected["tags"] or [])
            assert row["genre"] == expected["genre"]


def test_croissant_is_valid_and_reads_every_row(rows, views):
    mlcroissant = pytest.importorskip("mlcroissant")
    opened = mlcroissant.Dataset(jsonld=views / "hf" / "croissant.json")
    assert not opened.metadata.issues.errors
    for split, number in SPLITS.items():
        records = list(opened.records(split))
        assert len(records) == number
        for row in records:
            plain = {name.removeprefix(f"{split}/"): as_text(row[name]) for name in row}
            expected = rows[Path(plain["uri"]).name, plain["chunk_index"]]
            np.testing.assert_array_equal(plain["mel"], expected["mel"])
            assert plain["start_sample"] == expected["start_sample"]
            if expected["genre"] is not None:
                assert plain["genre"] == expected["genre"]


def test_exporting_twice_gives_the_same_bytes(dataset, views, tmp_path):
    for format_name in ("webdataset", "arrayrecord", "numpy"):
        export(dataset, tmp_path / format_name, format_name, name="dataset")
        first, second = (
            {path.name: path.read_bytes() for path in (folder / format_name).iterdir()}
            for folder in (views, tmp_path)
        )
        assert first == second


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    return shutil.copytree(dataset, tmp_path / "copy")


@pytest.mark.slow
def test_without_tfrecord_files_the_records_are_encoded_again(songs, views, tmp_path):
    settings = [value for value in SETTINGS if "=" in value and "formats" not in value]
    extract_here(songs.table, tmp_path / "dataset", *settings)
    assert not (tmp_path / "dataset" / "tfrecord").exists()
    export(tmp_path / "dataset", tmp_path / "view", "tfds")
    # A shard's name depends on the dataset's formats, and the shards' order on their names.
    expected, actual = views / "tfds", tmp_path / "view"
    assert _shards(actual) == _shards(expected)
    assert {path.name for path in actual.iterdir()} == {path.name for path in expected.iterdir()}
    assert (actual / "features.json").read_bytes() == (expected / "features.json").read_bytes()
    assert _info(actual) == _info(expected)


def _info(view: Path) -> dict[str, Any]:
    """Return the description of the view, with sorted shard lengths."""
    info = json.loads((view / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["shardLengths"].sort()
    return info


def _shards(view: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in view.glob("*.tfrecord*"))


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_missing_shard_is_named_and_the_view_is_not_described(copy, tmp_path, format_name):
    pattern = "tfrecord/train/*.tfrecord" if format_name == "tfds" else "split=train/*.parquet"
    missing = sorted(copy.glob(pattern))[0]
    content = missing.read_bytes()
    missing.unlink()
    message = refusal(copy, tmp_path / "view", format_name)
    assert f"shard {missing.relative_to(copy)} is missing" in message
    descriptions = ("README.md", "croissant.json", "dataset_info.json", "dataset.json")
    assert not any((tmp_path / "view" / name).exists() for name in descriptions)
    # An empty shard is refused, too.
    missing.write_bytes(b"")
    assert refusal(copy, tmp_path / "view", format_name)
    # When the shard is back, the same export finishes the view.
    missing.write_bytes(content)
    export(copy, tmp_path / "view", format_name)
    assert any((tmp_path / "view" / name).exists() for name in descriptions)


def test_a_damaged_shard_is_named(copy, tmp_path):
    shard = sorted(copy.glob("split=train/*.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    message = refusal(copy, tmp_path / "view", "numpy")
    assert f"shard {shard.relative_to(copy)} is damaged" in message


def test_wrong_options_are_refused_before_anything_starts(dataset, tmp_path):
    view = tmp_path / "view"
    result = melmill("export", dataset, view, "--format", "zip")
    assert result.returncode == 2
    assert (
        "--format zip: unknown; allowed: tfds, hf, webdataset, arrayrecord, numpy" in result.stderr
    )
    result = melmill("export", dataset, view, "--format", "tfds", "--name", "my songs")
    assert result.returncode == 2
    assert "--name my songs" in result.stderr
    result = melmill("export", tmp_path / "nothing", view, "--format", "hf")
    assert result.returncode == 2
    assert "holds no dataset" in result.stderr
    assert not view.exists()
    view.mkdir()
    (view / "thesis.doc").write_text("mine")
    assert "holds something else (thesis.doc)" in refusal(dataset, view, "hf")
    assert [path.name for path in view.iterdir()] == ["thesis.doc"]


def test_an_interrupted_export_is_resumed(dataset, views, tmp_path):
    view = tmp_path / "view"
    export(dataset, view, "numpy", name="dataset")
    # A killed run leaves its mark and some of its files.
    (view / "dataset.json").unlink()
    sorted(view.glob("*.npy"))[0].unlink()
    index = next((dataset / "index").iterdir()).name
    mark = {"index": index, "format": "numpy", "name": "dataset", "normalize": "none"}
    (view / "staging").mkdir()
    (view / "staging" / "export.json").write_text(json.dumps(mark))
    export(dataset, view, "numpy", name="dataset")
    assert sorted(path.name for path in view.iterdir()) == sorted(
        path.name for path in (views / "numpy").iterdir()
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [("a/my-songs", "my_songs"), ("s3://b/2024/", "dataset_2024"), ("ä/ü", "dataset"), ("x", "x")],
)
def test_a_view_is_named_after_its_datasets_folder(folder, name):
    assert default_name(folder) == name


def test_shards_that_are_symbolic_links_are_followed(copy, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    for shard in copy.glob("split=*/*.parquet"):
        shard.rename(away / shard.name)
        shard.symlink_to(f"../../away/{shard.name}")
    export(copy, tmp_path / "view", "hf")
    files = list((tmp_path / "view" / "data").iterdir())
    assert len(files) == len(list(away.iterdir()))
    assert not any(path.is_symlink() for path in files)


def test_a_shard_that_differs_from_the_index_is_named(dataset, tmp_path):
    store = Store(str(dataset))
    index = require_snapshot(store).index
    job = ExportJob(store, index, Store(str(tmp_path / "view")), "numpy", "songs")
    shard = next(list_export_shards(job))
    more_rows = replace(shard, rows=shard.rows + 1)
    with pytest.raises(DatasetError, match=f"{shard.parquet.name} is damaged: {shard.rows} rows"):
        export_shard(more_rows, job)
    more_bytes = replace(shard.parquet, size_bytes=shard.parquet.size_bytes + 1)
    with pytest.raises(DatasetError, match=f"has {shard.parquet.size_bytes} bytes, not"):
        export_shard(replace(shard, parquet=more_bytes), job)
    assert not any(path.is_file() for path in (tmp_path / "view").rglob("*"))


def test_json_has_no_infinity_anywhere():
    row = {"level": float("-inf"), "list": [1.5, float("nan"), None], "text": "NaN", "n": 1}
    plain = {"level": None, "list": [1.5, None, None], "text": "NaN", "n": 1}
    assert json.loads(formats._json(row)) == plain


def test_an_unfinished_export_of_another_snapshot_is_refused(dataset, tmp_path):
    view = tmp_path / "view"
    (view / "staging" / "scratch").mkdir(parents=True)
    (view / "staging" / "scratch" / ("01" * 16)).write_bytes(b"left by a killed run")
    export(dataset, view, "hf")
    (view / "README.md").unlink()
    (view / "staging").mkdir()
    (view / "staging" / "export.json").write_text("{}")
    assert "holds an unfinished export of another snapshot" in refusal(dataset, view, "hf")


def test_other_files_in_a_folder_staging_are_refused(dataset, tmp_path):
    user_file = tmp_path / "view" / "staging" / "mine.txt"
    user_file.parent.mkdir(parents=True)
    user_file.write_text("somebody's own")
    message = refusal(dataset, tmp_path / "view", "hf")
    assert "holds something else (staging/mine.txt)" in message
    assert user_file.exists()


def test_a_views_card_counts_its_own_bytes(views):
    card = (views / "hf" / "README.md").read_text("utf-8")
    for split in SPLITS:
        size = sum(path.stat().st_size for path in (views / "hf" / "data").glob(f"{split}-*"))
        assert re.search(rf"^\| {split} \|.*\| {size / 1e6:.1f} \|$", card, re.MULTILINE)
