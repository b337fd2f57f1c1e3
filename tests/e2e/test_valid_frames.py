"""Valid frames: a column of the rows, and what statistics count; datasets without them stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import melmill
from melmill.pipelines.config import load_config
from melmill.pipelines.explore.chunk_rows import ChunkReader
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import CatalogueError, ConfigError, DatasetError
from melmill.transforms.features import spec as spec_module
from melmill.transforms.loading.row_order import RowOrder
from melmill.transforms.store.folders import Store
from tests.e2e.test_carried_features import RATE, computed, rows
from tests.pipeline_runs import extract_here, make_test_job, refresh_here
from tests.refresh.catalogues import write_song, write_table

__all__ = ["computed"]  # a fixture

MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
SLOW = "{name: slow, kind: waveform, sample_rate_hz: 2000}"
SPECTRUM = "{name: spectrum, kind: stft, n_fft: 100, win_length: 60, hop_length: 20}"
SETTINGS = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.5",
    "chunk.tail=pad",
    "output.row_group_rows=3",
    "output.min_shards=1",
    "output.formats=[parquet,tfrecord]",
    "split.fractions={train: 1.0}",
)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Return a catalogue of six songs, most of which do not fill their last chunk."""
    for number in range(6):
        write_song(tmp_path / "songs" / f"{number}.wav", number, 0.1 + 0.23 * number, RATE)
    names = [{"uri": f"{number}.wav"} for number in range(6)]
    return write_table(tmp_path / "songs" / "songs.jsonl", names)


@contextmanager
def older_melmill() -> Iterator[None]:
    """Write datasets as version 2 of the extractor did: rows without valid frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec_module, "EXTRACTOR_VERSION", 2)
        patch.setattr(spec_module, "valid_column", lambda feature, *, is_base: "")
        yield


def test_a_row_has_its_number_of_valid_frames_beside_its_valid_samples(
    songs: Path, tmp_path: Path
) -> None:
    entries = f"features=[{MEL},{SPECTRUM},{SLOW}]"
    dataset = extract_here(songs, tmp_path / "set", *SETTINGS, entries)
    names = list(melmill.open(tmp_path / "set").columns)
    place = names.index("valid_samples")
    others = ["spectrum_valid_frames", "slow_valid_samples"]
    assert names[place + 1 : place + 4] == ["valid_frames", *others]
    for row in rows(tmp_path / "set"):
        valid = row["valid_samples"]
        starts = 128 * np.arange(len(row["mel"][0])) - 128
        assert row["valid_frames"] == (starts < valid).sum()
        starts = 20 * np.arange(len(row["spectrum"][0])) - 50 + 20  # 40 zeros around the window
        assert row["spectrum_valid_frames"] == (starts < valid).sum()
        assert row["slow_valid_samples"] == -(-valid // 2)
    assert {row["valid_samples"] for row in rows(tmp_path / "set")} > {2000}
    assert dataset.totals.rows == len(rows(tmp_path / "set"))


def valid_values(dataset: Path, feature: str, valid: str) -> np.ndarray:
    """Return the values of all valid frames, float64 [bands, frames]."""
    values = [np.atleast_2d(np.float64(r[feature]))[:, : r[valid]] for r in rows(dataset)]
    return np.concatenate(values, axis=1)


def test_statistics_count_valid_frames_and_samples_alone(songs: Path, tmp_path: Path) -> None:
    entries = f"features=[{MEL},{SPECTRUM},{SLOW}]"
    extract_here(songs, tmp_path / "set", *SETTINGS, entries)
    statistics = melmill.open(tmp_path / "set").statistics
    counted = {"mel": "valid_frames", "spectrum": "spectrum_valid_frames"}
    for name, column in (counted | {"slow": "slow_valid_samples"}).items():
        entry = statistics if name == "mel" else statistics["features"][name]
        values = valid_values(tmp_path / "set", name, column)
        assert entry["values_per_band"] == values.shape[1]
        np.testing.assert_allclose(entry["mean"], values.mean(axis=1), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(entry["std"], values.std(axis=1), rtol=1e-5)
        assert (entry["min"], entry["max"]) == (values.min(), values.max())
    everything = np.concatenate([row["mel"] for row in rows(tmp_path / "set")], axis=1)
    assert np.abs(everything.mean(axis=1) - statistics["mean"]).max() > 1  # dB, for the padding


def test_a_view_of_some_recordings_counts_valid_frames_alone(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *SETTINGS, "quality=basic")
    view = melmill.export(
        tmp_path / "set", tmp_path / "view", "numpy", normalize="per_chunk", select="level.rms < 0"
    )
    assert view is not None
    (path,) = (tmp_path / "view").glob("*.mel.npy")
    by_place = {(r["uri"], r["chunk_index"]): r for r in rows(tmp_path / "set")}
    lines = Path(str(path).replace(".mel.npy", ".jsonl")).read_text().splitlines()
    for line, mel in zip(map(json.loads, lines), np.load(path), strict=True):
        stored = by_place[line["uri"], line["chunk_index"]]
        assert line["valid_frames"] == stored["valid_frames"]
        valid = np.float64(stored["mel"])[:, : line["valid_frames"]]
        mean, std = valid.mean(axis=1, keepdims=True), valid.std(axis=1, keepdims=True)
        expected = (np.float64(stored["mel"]) - mean) / np.maximum(std, 1e-5)
        np.testing.assert_allclose(mel, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def older(songs: Path, tmp_path: Path) -> Path:
    with older_melmill():
        extract_here(songs, tmp_path / "older", *SETTINGS, "quality=basic")
    return tmp_path / "older"


def test_a_dataset_of_an_older_melmill_is_read_as_it_is(older: Path, tmp_path: Path) -> None:
    (shard,) = (older / "split=train").iterdir()
    assert "valid_frames" not in pq.read_schema(shard).names
    assert b"melmill.valid_column" not in pq.read_schema(shard).metadata
    dataset = melmill.open(older)
    assert (dataset.columns.get("valid_frames"), dataset.features["mel"].valid) == (None, "")
    assert len(rows(older)) == dataset.rows["train"]
    assert validate(Store(str(older)), 1, lambda number: None) == []
    verified = melmill.verify(older, sample=3)
    assert verified.passed
    melmill.export(older, tmp_path / "view", "numpy", normalize="per_recording")
    opened = OpenSnapshot.current(Store(str(older)))
    (recording, *_) = dataset.recordings(["recording_id", "split", "shards"]).to_pylist()
    assert ChunkReader(opened.store).chunks(recording)[0].valid_samples > 0
    with pytest.raises(DatasetError, match="refresh it first"):
        opened.job("compact")


def test_a_refresh_adds_the_column_and_decodes_nothing(
    songs: Path, older: Path, tmp_path: Path, computed: list[Any]
) -> None:
    before = [row["mel"] for row in rows(older)]
    refreshed = refresh_here(songs, older)
    assert computed == []
    assert (refreshed.committed, refreshed.new_schema) == (True, True)
    extract_here(songs, tmp_path / "fresh", *SETTINGS, "quality=basic")
    assert rows(older) == rows(tmp_path / "fresh")
    assert [row["mel"] for row in rows(older)] == before
    fresh = melmill.open(tmp_path / "fresh").statistics
    assert melmill.open(older).statistics["mean"] == pytest.approx(fresh["mean"], rel=1e-6)
    assert not refresh_here(songs, older).committed


def test_a_label_named_like_the_column_is_refused(songs: Path, tmp_path: Path) -> None:
    table = write_table(songs, [{"uri": "0.wav", "valid_frames": 3}])
    with pytest.raises(CatalogueError, match=r"no label can be named 'valid_frames'.*of mel"):
        make_test_job(table, tmp_path / "set")
    entry = "features=[{name: samples, kind: waveform}]"
    job = make_test_job(table, tmp_path / "set", entry)
    assert [label.name for label in job.schema.labels] == ["valid_frames"]


def test_an_older_dataset_with_a_label_of_this_name_is_read(songs: Path, tmp_path: Path) -> None:
    names = [{"uri": f"{number}.wav", "valid_frames": number} for number in range(6)]
    table = write_table(songs, names)
    with older_melmill():
        extract_here(table, tmp_path / "older", *SETTINGS)
    labels = {Path(row["uri"]).name: row["valid_frames"] for row in rows(tmp_path / "older")}
    assert labels == {f"{number}.wav": number for number in range(6)}
    assert melmill.open(tmp_path / "older").columns["valid_frames"] == "int64"


def test_a_feature_named_like_the_column_of_another_is_refused() -> None:
    taken = "{name: spectrum_valid_frames, kind: waveform}"
    with pytest.raises(ConfigError, match="number of valid frames of spectrum has this name"):
        load_config(None, (f"features=[{SPECTRUM},{taken}]",))


def test_masks_of_an_older_dataset_need_a_refresh(older: Path, songs: Path, tmp_path: Path) -> None:
    shutil.copytree(older, tmp_path / "set")
    with pytest.raises(DatasetError, match="how much of 'mel' is valid; refresh the dataset"):
        melmill.open(tmp_path / "set")._open_part("train", ["mel"], RowOrder(), Cuts(masks=True))
    refresh_here(songs, tmp_path / "set")
    newer = melmill.open(tmp_path / "set")
    assert newer._open_part("train", ["mel"], RowOrder(), Cuts(masks=True)).source.blocks.rows
