"""Tests of TFDS: it opens our shards with the two documents and the file names made for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.columns import LABEL_TYPES, LabelColumn
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.tfds import (
    TfdsShard,
    TfdsSplit,
    dataset_info,
    features,
    shard_file,
)
from melmill.transforms.rows.tfrecord import TFRecordShard

LABELS = (
    LabelColumn("genre", "string"),
    LabelColumn("year", "int64"),
    LabelColumn("tempo", "double"),
    LabelColumn("live", "bool"),
    LabelColumn("tags", "list<string>"),
    LabelColumn("beats", "list<double>"),
)
SCHEMA = RowSchema((FeatureColumn("mel", (4, 6)),), labels=LABELS, per_channel=True)
NULL_INT64, NULL_FLOAT32 = np.iinfo(np.int64).min, np.finfo(np.float32).min


def make_batch(rows: int, start: int) -> RowBatch:
    """Return rows; every third row has no labels."""
    index = [int(i) for i in range(start, start + rows)]
    mel = np.random.default_rng(start).normal(size=(rows, 4, 6)).astype(np.float32)
    columns = {
        "recording_id": [f"{i:016x}" for i in index],
        "uri": [f"s3://songs/{i}.flac" for i in index],
        "chunk_index": index,
        "channel": [0] * rows,
        "start_sample": [i * 2**33 for i in index],
        "valid_samples": [66150] * rows,
        "sample_rate_hz": [22050] * rows,
        "peak_dbfs": [-float(i) for i in index],
        "rms_dbfs": [-20.25] * rows,
        "genre": [f"genre {i}" for i in index],
        "year": [1990 + i for i in index],
        "tempo": [100.5 + i for i in index],
        "live": [i % 2 == 0 for i in index],
        "tags": [["a", "b"][: i % 3] for i in index],
        "beats": [[0.5, 1.5] for i in index],
    }
    for label in LABELS:
        values = columns[label.name]
        columns[label.name] = [
            None if i % 3 == 2 else v for i, v in zip(index, values, strict=True)
        ]
    return RowBatch(columns, {"mel": mel})


TRAIN = [make_batch(7, 0), make_batch(5, 7)]
TEST = [make_batch(3, 12)]


def write_split(folder: Path, name: str, batches: list[RowBatch]) -> TfdsSplit:
    """Write one shard for each batch, with TFDS's file names."""
    shards = []
    for number, batch in enumerate(batches):
        path = folder / shard_file("songs", name, number, len(batches))
        with TFRecordShard(path, SCHEMA) as shard:
            shard.add(batch)
        shards.append(TfdsShard(batch.rows, path.stat().st_size))
    return TfdsSplit(name, tuple(shards))


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("songs")
    splits = [write_split(path, "train", TRAIN), write_split(path, "test", TEST)]
    splits.append(TfdsSplit("validation", ()))
    info = dataset_info("songs", "1.2.0", splits, description="Songs.")
    (path / "dataset_info.json").write_text(json.dumps(info))
    (path / "features.json").write_text(json.dumps(features(SCHEMA)))
    return path


@pytest.fixture(scope="module")
def builder(tfds, folder):
    return tfds.builder_from_directory(folder)


def rows_of(tfds, builder, split: str) -> list[dict]:
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def column(batches: list[RowBatch], name: str) -> list:
    return [value for batch in batches for value in batch.columns[name]]


def test_tfds_gives_every_mel_exactly_and_in_order(tfds, builder):
    rows = rows_of(tfds, builder, "train")
    mel = np.stack([row["mel"] for row in rows])
    assert mel.dtype == np.float32
    np.testing.assert_array_equal(mel, np.concatenate([batch.features["mel"] for batch in TRAIN]))


def test_tfds_gives_the_core_columns(tfds, builder):
    rows = rows_of(tfds, builder, "test")
    for name in ("chunk_index", "start_sample", "sample_rate_hz", "peak_dbfs"):
        assert [row[name] for row in rows] == column(TEST, name)
    assert [row["uri"].decode() for row in rows] == column(TEST, "uri")
    assert rows[0]["chunk_index"].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "null"),
    [("genre", b""), ("year", NULL_INT64), ("tempo", NULL_FLOAT32), ("live", NULL_INT64)],
)
def test_tfds_gives_the_labels_and_marks_nulls(tfds, builder, name, null):
    values = [row[name] for row in rows_of(tfds, builder, "train")]
    labels = column(TRAIN, name)
    assert None in labels
    expected = [v.encode() if isinstance(v, str) else null if v is None else v for v in labels]
    assert values == expected


def test_tfds_gives_lists_as_sequences_and_no_list_as_an_empty_one(tfds, builder):
    rows = rows_of(tfds, builder, "train")
    tags = [[tag.decode() for tag in row["tags"]] for row in rows]
    assert tags == [value or [] for value in column(TRAIN, "tags")]
    assert [row["beats"].tolist() for row in rows] == [v or [] for v in column(TRAIN, "beats")]


def test_slices_count_rows_over_shards(tfds, builder):
    first, second = (rows_of(tfds, builder, f"train[{part}]") for part in (":50%", "50%:"))
    chunks = [row["chunk_index"] for row in first + second]
    assert len(first) == 6
    assert chunks == column(TRAIN, "chunk_index")


def test_the_info_says_name_version_and_sizes(builder, folder):
    assert (builder.name, str(builder.version)) == ("songs", "1.2.0")
    assert builder.info.description == "Songs."
    assert builder.info.splits["train"].shard_lengths == [7, 5]
    assert set(builder.info.splits) == {"train", "test"}
    sizes = sum(path.stat().st_size for path in folder.glob("songs-train*"))
    assert builder.info.splits["train"].num_bytes == sizes


def test_features_are_the_ones_that_tfds_would_have_saved(tfds, tmp_path):
    scalar, sequence = tfds.features.Scalar, tfds.features.Sequence
    labels = tuple(LabelColumn(kind, kind) for kind in LABEL_TYPES)
    stored = {"string": np.str_, "int64": np.int64, "double": np.float32, "bool": np.int64}
    core = dict.fromkeys(("recording_id", "uri"), scalar(np.str_))
    core |= dict.fromkeys(("chunk_index", "valid_samples", "sample_rate_hz"), scalar(np.int32))
    core |= dict.fromkeys(("peak_dbfs", "rms_dbfs"), scalar(np.float32))
    core["start_sample"] = scalar(np.int64)
    core["mel"] = tfds.features.Tensor(shape=(4, 6), dtype=np.float32)
    core["quality_level_rms"] = scalar(np.float32, optional=True)
    core |= {kind: scalar(dtype, optional=True) for kind, dtype in stored.items()}
    core |= {f"list<{kind}>": sequence(scalar(dtype)) for kind, dtype in stored.items()}
    tfds.features.FeaturesDict(core).save_config(tmp_path)
    expected = json.loads((tmp_path / "features.json").read_text())
    columns = FeatureColumn("mel", (4, 6)), FeatureColumn("quality_level_rms", ())
    assert features(RowSchema(columns, labels)) == expected


def test_a_key_that_tfds_does_not_know_is_refused_by_it(tfds, folder, tmp_path):
    (tmp_path / "features.json").write_text((folder / "features.json").read_text())
    info = json.loads((folder / "dataset_info.json").read_text())
    (tmp_path / "dataset_info.json").write_text(json.dumps(info | {"surprise": 1}))
    with pytest.raises(Exception, match="surprise"):
        tfds.builder_from_directory(tmp_path)


@pytest.mark.parametrize("name", ["", "my-songs", "1songs", "a/b", "sóngs"])
def test_a_name_that_tfds_refuses_is_refused(name):
    with pytest.raises(ValueError, match="dataset name"):
        dataset_info(name, "1.0.0", [])


@pytest.mark.parametrize("version", ["", "1", "1.0", "1.0.0a", "01.0.0", "1.0.0.0"])
def test_a_version_that_tfds_refuses_is_refused(version):
    with pytest.raises(ValueError, match="version"):
        dataset_info("songs", version, [])


def test_more_than_99999_shards_get_longer_numbers():
    name = shard_file("songs", "train", 7, 100_000)
    assert name == "songs-train.tfrecord-000007-of-100000"
