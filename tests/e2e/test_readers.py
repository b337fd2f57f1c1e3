"""Every common reader reads what the command wrote, and librosa computes the same values."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from melmill.pipelines.snapshots.validate import check_shard, validate
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.snapshot.totals import ordered_shards
from melmill.transforms.store.folders import Store
from tests.e2e.rows import (
    CHUNK,
    CHUNKS,
    RATE_HZ,
    SHAPE,
    SPLITS,
    Rows,
    as_text,
    assert_same_rows,
    by_chunk,
    from_arrow,
    from_columns,
    read_hugging_face,
)
from tests.e2e.songs import LABELS, SETTINGS, SONGS, Songs
from tests.pipeline_runs import extract_here, melmill, melmill_json
from tests.signals import noise, write_audio


def test_every_chunk_has_its_row_its_split_and_its_labels(rows, songs):
    assert rows.keys() == {(name, i) for name, chunks in CHUNKS.items() for i in range(chunks)}
    for name, _, _, seconds, split, labels in SONGS:
        for i in range(CHUNKS[name]):
            row = rows[name, i]
            assert row["split"] == split
            assert {label: row[label] for label in LABELS} == dict.fromkeys(LABELS) | labels
            assert row["uri"] == str(songs.path(name))
            assert row["start_sample"] == i * CHUNK
            assert row["sample_rate_hz"] == RATE_HZ
            assert row["valid_samples"] == min(CHUNK, round(seconds * RATE_HZ))
            assert row["valid_frames"] == min(130, -(-(row["valid_samples"] + 1024) // 512))


def decode(path: Path) -> np.ndarray:
    """Return mono samples at the target rate, as a user of librosa would decode them."""
    import librosa

    if path.suffix != ".m4a":
        samples, _ = librosa.load(path, sr=RATE_HZ, mono=True, res_type="soxr_hq")
        return samples
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    mono = librosa.to_mono(np.concatenate(frames, axis=1))
    return librosa.resample(mono, orig_sr=rate, target_sr=RATE_HZ, res_type="soxr_hq")


@pytest.mark.parametrize("name", CHUNKS)
def test_every_spectrogram_equals_librosas(rows, songs, name):
    import librosa

    samples = librosa.util.fix_length(decode(songs.path(name)), size=CHUNKS[name] * CHUNK)
    for i, chunk in enumerate(samples.reshape(-1, CHUNK)):
        power = librosa.feature.melspectrogram(y=chunk, sr=RATE_HZ)
        # As in tests/features/test_mel.py, rounding changes a value 80 dB below the loudest by up
        # to 1/70. Our resampling in pieces also differs from librosa's by 5e-7 of full scale.
        np.testing.assert_allclose(
            rows[name, i]["mel"], librosa.power_to_db(power), rtol=0, atol=0.01
        )


def test_levels_are_those_of_the_samples(rows, songs):
    samples = decode(songs.path("a.wav"))[:CHUNK]
    row = rows["a.wav", 0]
    assert row["peak_dbfs"] == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=1e-4)
    assert row["rms_dbfs"] == pytest.approx(10 * np.log10((samples**2).mean()), abs=1e-4)


def test_polars_reads_the_same_rows(rows, dataset):
    import polars

    table = polars.read_delta(str(dataset))
    values = table["mel"].explode().explode().to_numpy()
    assert values.dtype == np.float32
    columns = table.drop("mel").to_dict(as_series=False)
    assert_same_rows(from_columns(columns, values.reshape(-1, *SHAPE)), rows)


def test_duckdb_reads_the_same_rows(rows, dataset):
    import duckdb

    table = DeltaTable(dataset)
    with duckdb.connect() as database:
        database.register("songs", table.to_pyarrow_dataset())
        assert_same_rows(from_arrow(database.sql("from songs").to_arrow_table()), rows)
        files = database.read_parquet(table.file_uris(), hive_partitioning=True)
        assert_same_rows(from_arrow(files.to_arrow_table()), rows)
        query = "select count(*) from songs where live and tempo > 100"
        assert database.execute(query).fetchone() == (CHUNKS["c.mp3"],)


def test_hugging_face_datasets_reads_the_same_splits_and_arrays(rows, dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path))
    assert {split: part.num_rows for split, part in loaded.items()} == SPLITS
    assert loaded["train"].features["mel"] == datasets.Array2D(SHAPE, "float32")
    assert_same_rows(read_hugging_face(loaded), rows)


def test_tensorflow_reads_the_same_records(rows, dataset, tf):
    files = json.loads((dataset / "tfrecord" / "files.json").read_text())
    scalars = {"recording_id": tf.string, "uri": tf.string, "chunk_index": tf.int64}
    scalars |= {"start_sample": tf.int64, "valid_samples": tf.int64, "sample_rate_hz": tf.int64}
    scalars |= {"valid_frames": tf.int64, "peak_dbfs": tf.float32, "rms_dbfs": tf.float32}
    labels = {"genre": tf.string, "year": tf.int64, "tempo": tf.float32, "live": tf.int64}
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in scalars.items()}
    features |= {name: tf.io.RaggedFeature(kind) for name, kind in labels.items()}
    features |= {"tags": tf.io.RaggedFeature(tf.string)}
    features |= {"mel": tf.io.FixedLenFeature(SHAPE, tf.float32)}
    actual = []
    for split in SPLITS:
        records = tf.data.TFRecordDataset([str(dataset / name) for name in files[split]])
        parsed = records.map(lambda record: tf.io.parse_single_example(record, features))
        actual += [plain_row(row) | {"split": split} for row in parsed.as_numpy_iterator()]
    # In a TFRecord file, a float label is a float32, and a missing list is an empty list.
    assert_same_rows(by_chunk(actual), rows, ignore=("tempo", "tags"))
    assert_labels_of_examples(by_chunk(actual), rows)


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with text as `str`, and with a label's list of at most one value as a value."""
    plain = {name: as_text(value) for name, value in row.items() if name != "mel"}
    for name in ("genre", "year", "tempo", "live"):
        plain[name] = plain[name][0] if len(plain[name]) else None
    return plain | {"mel": row["mel"], "tags": list(plain["tags"])}


def assert_labels_of_examples(actual: Rows, expected: Rows) -> None:
    for key, row in expected.items():
        assert actual[key]["tags"] == (row["tags"] or [])
        tempo = None if row["tempo"] is None else np.float32(row["tempo"])
        assert actual[key]["tempo"] == tempo


def shards_of(dataset: Path) -> list[ShardSummary]:
    store = Store(str(dataset))
    return list(ordered_shards(store, require_snapshot(store).index))


def test_plan_extract_inspect_and_the_rows_agree(rows, songs, dataset):
    extracted = json.loads((dataset.parent / "summary.json").read_text())
    planned = melmill_json("plan", songs.table, *SETTINGS)
    inspected = melmill_json("inspect", dataset)
    assert planned["rows"] == SPLITS
    assert (
        sum(SPLITS.values())
        == len(rows)
        == extracted["rows"]
        == inspected["rows"]
        == planned["chunks"]
    )
    assert planned["recordings"] == {"planned": len(SONGS)}
    assert extracted["recordings"] == inspected["recordings"] == {"ok": len(SONGS)}
    seconds = sum(song[3] for song in SONGS)
    assert planned["seconds"] == pytest.approx(seconds, rel=0.01)
    assert (
        extracted["hours"]
        == inspected["hours"]
        == pytest.approx(planned["seconds"] / 3600, rel=1e-9)
    )
    assert extracted["splits"] == inspected["splits"]
    for split, content in inspected["splits"].items():
        files = list(dataset.glob(f"split={split}/*.parquet"))
        assert content["rows"] == SPLITS[split]
        assert content["shards"] == planned["shards"][split] == len(files)
        assert content["parquet_bytes"] == sum(file.stat().st_size for file in files)
        assert content["recordings"] == sum(song[4] == split for song in SONGS)
    assert sum(planned["shards"].values()) >= 12
    assert planned["parquet_bytes"] == pytest.approx(
        sum(content["parquet_bytes"] for content in inspected["splits"].values()), rel=0.3
    )


def test_statistics_are_those_of_the_training_rows(rows, dataset):
    statistics = json.loads((dataset / "statistics.json").read_text())
    mel = np.stack([row["mel"] for row in rows.values() if row["split"] == "train"])
    assert statistics["split"] == "train"
    assert statistics["values_per_band"] == mel.size // SHAPE[0]
    np.testing.assert_allclose(statistics["mean"], mel.mean(axis=(0, 2), dtype=float), rtol=1e-6)
    np.testing.assert_allclose(statistics["std"], mel.std(axis=(0, 2), dtype=float), rtol=1e-6)
    assert (statistics["min"], statistics["max"]) == (mel.min(), mel.max())


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    return shutil.copytree(dataset, tmp_path / "copy")


def test_an_undamaged_dataset_is_whole(dataset):
    assert melmill("validate", dataset, "--workers", "1").stdout == f"{dataset} is whole\n"


def test_every_damaged_file_is_named(copy):
    shards = shards_of(copy)
    flipped_parquet, flipped_tfrecord, missing, cut, first, second = shards[:6]
    flip(copy / flipped_parquet.parquet.name, flipped_parquet.parquet.size_bytes // 2)
    flip(copy / flipped_tfrecord.tfrecord.name, flipped_tfrecord.tfrecord.size_bytes // 2)
    (copy / missing.parquet.name).unlink()
    (copy / cut.parquet.name).write_bytes((copy / cut.parquet.name).read_bytes()[:-100])
    first_path, second_path = copy / first.parquet.name, copy / second.parquet.name
    first_bytes = first_path.read_bytes()
    first_path.write_bytes(second_path.read_bytes())
    second_path.write_bytes(first_bytes)
    faults = validate(Store(str(copy)), 1, lambda shards: None)
    named_files = {fault.split(": ")[0] for fault in faults}
    damaged = {shard.parquet.name for shard in (flipped_parquet, missing, cut, first, second)}
    assert damaged | {flipped_tfrecord.tfrecord.name} <= named_files
    # If a Parquet file cannot be read, its TFRecord file may be named, too.
    assert named_files <= damaged | {
        shard.tfrecord.name for shard in (flipped_tfrecord, *shards[:6])
    }
    result = melmill("validate", copy, "--workers", "1")
    assert result.returncode == 1
    assert result.stdout.splitlines() == faults


def test_inspect_names_a_damaged_shard(copy):
    for shard in copy.glob("split=*/*.parquet"):
        shard.write_bytes(b"")
    for command in (("inspect",), ("inspect", "--json")):
        result = melmill(*command, copy)
        assert result.returncode == 2
        assert re.search(r"shard split=\w+/part-\w+\.parquet is damaged", result.stderr)
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("format_name", ["parquet", "tfrecord"])
def test_a_flipped_bit_is_found_wherever_it_is(copy, format_name):
    shard = min(shards_of(copy), key=lambda shard: shard.rows)
    store, features = Store(str(copy)), require_snapshot(Store(str(copy))).features
    assert check_shard(shard, store=store, features=features) == []
    file = getattr(shard, format_name)
    ends = [*range(12), *range(-400, 0, 9)]
    for position in (*ends, *range(100, file.size_bytes, file.size_bytes // 40)):
        flip(copy / file.name, position)
        faults = check_shard(shard, store=store, features=features)
        assert any(fault.startswith(f"{file.name}: ") for fault in faults), position
        flip(copy / file.name, position)


def test_a_shard_that_the_log_does_not_know_is_named(copy):
    (log,) = (copy / "_delta_log").glob("*.json")
    lines = log.read_text().splitlines()
    (name, *_) = (json.loads(line)["add"]["path"] for line in lines if '"add"' in line)
    log.write_text("\n".join(line for line in lines if name not in line) + "\n")
    faults = validate(Store(str(copy)), 1, lambda shards: None)
    assert faults == [f"{name}: in the index, but not in the Delta log"]


@pytest.fixture
def albums(tmp_path) -> Songs:
    """Write eight recordings of four albums, and a CSV table of them."""
    (tmp_path / "audio").mkdir()
    lines = ["uri,album,track,gain,live"]
    for i in range(8):
        write_audio(tmp_path / "audio" / f"{i}.wav", noise(3, 16_000, i), 16_000)
        lines.append(f"audio/{i}.wav,album {i // 2},{i},{i / 2},{'true' if i % 3 else ''}")
    (tmp_path / "albums.csv").write_text("\n".join(lines) + "\n")
    return Songs(tmp_path / "albums.csv")


def test_a_csv_tables_labels_travel_and_a_group_stays_together(albums, tmp_path):
    extract_here(albums.table, tmp_path / "dataset", "split.by=group", "split.group=album")
    table = DeltaTable(tmp_path / "dataset").to_pyarrow_table().drop_columns(["mel"])
    rows = sorted(table.to_pylist(), key=lambda row: row["track"])
    for i, row in enumerate(rows):
        assert row["album"] == f"album {i // 2}"
        assert (row["track"], row["gain"]) == (i, i / 2)
        assert row["live"] is (True if i % 3 else None)
    assert len({(row["album"], row["split"]) for row in rows}) == 4


@pytest.mark.slow
def test_file_urls_give_the_same_rows_as_paths(albums, tmp_path):
    first = extract_here(albums.table, tmp_path / "by path")
    second = extract_here(f"file://{albums.table}", f"file://{tmp_path}/by url")
    # The shards differ, because the rows contain different URIs.
    assert first.totals.recordings == second.totals.recordings
    assert first.totals.seconds == second.totals.seconds
    first_rows = DeltaTable(tmp_path / "by path").to_pyarrow_table().sort_by("track")
    second_rows = DeltaTable(tmp_path / "by url").to_pyarrow_table().sort_by("track")
    assert first_rows["mel"] == second_rows["mel"]
    assert first_rows["recording_id"] == second_rows["recording_id"]
    assert first_rows["split"] == second_rows["split"]
    assert validate(Store(f"file://{tmp_path}/by url"), 1, lambda shards: None) == []
