"""`melmill verify` computes rows again with librosa, and finds rows that differ."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import melmill.pipelines.cli.snapshot_commands  # noqa: F401 - registers its commands
from melmill.pipelines.cli.app import app
from melmill.pipelines.cli.verification_texts import verification_text
from melmill.pipelines.snapshots import verify as verify_module
from melmill.pipelines.snapshots.sampled_rows import sample_rows
from melmill.pipelines.snapshots.verify import Verification, verify
from melmill.transforms.rows.parquet import ParquetShard, read_rows, read_schema
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here

#: Name, sample rate in Hz, channels.
RECORDINGS = (
    ("a.wav", 44_100, 2),
    ("b.flac", 48_000, 2),
    ("c.mp3", 44_100, 1),
    ("d.ogg", 44_100, 2),
    ("e.flac", 22_050, 1),
    ("f.opus", 48_000, 2),
)
SETTINGS = (
    "chunk.seconds=1",
    "chunk.tail=pad",
    "split.fractions={train: 1.0}",
    "output.row_group_rows=4",
    "output.min_shards=3",
)


def write_songs(folder: Path) -> Path:
    folder.mkdir()
    for seed, (name, rate_hz, channels) in enumerate(RECORDINGS):
        samples = signals.song(14.5, rate_hz, seed, channels)
        signals.write_audio(folder / name, samples, rate_hz)
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    return write_songs(tmp_path_factory.mktemp("catalogue") / "songs")


@pytest.fixture(scope="module")
def dataset(songs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("output") / "dataset"
    extract_here(songs, output, *SETTINGS)
    return output


def verify_here(dataset: Path, sample: int = 1_000, seed: int = 0) -> Verification:
    return verify(Store(str(dataset)), sample, seed, lambda number: None)


def run(*arguments: Path | str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments), "--json", "--quiet"])
    return result.exit_code, json.loads(result.stdout)


def test_a_dataset_holds_librosas_values_in_every_format(dataset):
    report = verify_here(dataset)
    assert report.passed
    assert report.rows == 15 * len(RECORDINGS)
    assert not report.skipped
    assert set(report.formats) == {"wav/pcm_16", "flac/flac", "mp3/mp3", "ogg/vorbis", "ogg/opus"}
    for result in report.formats.values():
        assert 0 < result.mean < result.largest < 0.01
        assert result.tolerance_share < 1


@pytest.mark.parametrize(
    "settings",
    [
        ("audio.channels=each", "mel.log.kind=ln", "mel.log.top_db=null"),
        ("audio.channels=left", "mel.power=1", "chunk.hop_seconds=0.4", "chunk.tail=shift_back"),
        ("audio.sample_rate_hz=16000", "mel.log.ref=max", "mel.pad_mode=reflect"),
        ("mel.log.kind=none", "mel.log.top_db=null", "mel.center=false"),
        ("chunk.seconds=20", "chunk.short=repeat", "output.resolution=1/64 dB"),
        ("audio.resampler=soxr_vhq", "mel.win_length=1000", "mel.scale=htk", "mel.norm=none"),
    ],
)
def test_every_recipe_has_its_reference(songs, tmp_path, settings):
    extract_here(songs, tmp_path / "dataset", *SETTINGS, *settings)
    report = verify_here(tmp_path / "dataset", 40)
    assert report.passed, verification_text("dataset", report)
    assert 0 < report.rows <= 40


def falsify(dataset: Path, change: float) -> str:
    """Add `change` to the loudest value of a row, rewrite its shard, and return the row's URI."""
    path = sorted(dataset.glob("split=*/*.parquet"))[0]
    schema, metadata = read_schema(path)
    batches = list(read_rows(path))
    changed = batches[0].features["mel"].copy()
    changed[1].flat[changed[1].argmax()] += change
    with ParquetShard(path, schema, metadata=metadata) as shard:
        for number, batch in enumerate(batches):
            features = {"mel": changed} if number == 0 else batch.features
            shard.add(type(batch)(batch.columns, features))
    return str(batches[0].columns["uri"][1])


@pytest.mark.parametrize("change_db", [-40.0, 0.005])
def test_a_row_that_was_falsified_is_found(dataset, tmp_path, change_db):
    shutil.copytree(dataset, tmp_path / "dataset")
    uri = falsify(tmp_path / "dataset", change_db)
    status, summary = run(tmp_path / "dataset", "--sample", "1000")
    assert status == 1
    assert not summary["passed"]
    [row] = summary["beyond"]
    assert row["uri"] == uri
    assert row["largest"] == pytest.approx(abs(change_db), abs=0.001)


def test_the_sample_is_drawn_uniformly_and_by_its_seed(dataset):
    store = Store(str(dataset))
    snapshot = require_snapshot(store)

    def draw(sample: int, seed: int) -> list[tuple[str, int]]:
        rows = sample_rows(store, snapshot, sample, seed)
        return [(row.recording_id, row.chunk_index) for row in rows]

    all_rows = draw(1_000, 0)
    assert len(set(all_rows)) == len(all_rows) == 90
    assert draw(10, 1) == draw(10, 1) != draw(10, 2)
    drawn_rows = [row for seed in range(200) for row in draw(9, seed)]
    counts = [drawn_rows.count(row) for row in all_rows]
    assert sum(counts) == 1_800
    # Each row is drawn 20 times on average, with a deviation of 4.3.
    assert 4 <= min(counts) <= max(counts) <= 40


def test_only_the_row_groups_that_hold_the_sample_are_read(dataset, monkeypatch):
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, *a: groups.append(i) or read(self, i, *a)
    )
    store = Store(str(dataset))
    rows = list(sample_rows(store, require_snapshot(store), 3, 0))
    assert len(rows) == 3
    assert len(groups) <= 3


def test_sources_that_changed_or_are_gone_are_named(tmp_path):
    songs, output = write_songs(tmp_path / "songs"), tmp_path / "dataset"
    extract_here(songs, output, *SETTINGS)
    signals.write_audio(songs / "a.wav", signals.song(9, 44_100, 9, 2), 44_100)
    (songs / "c.mp3").unlink()
    status, summary = run(output, "--sample", "1000")
    assert status == 0
    assert summary["skipped"] == {
        "the source has changed since it was extracted": {str(songs / "a.wav"): 15},
        "the source is gone": {str(songs / "c.mp3"): 15},
    }
    text = verification_text("dataset", verify_here(output))
    assert "skipped 15 rows: the source is gone" in text
    shutil.rmtree(songs)
    assert run(output)[0] == 1


def test_rows_of_a_recording_that_the_index_lacks_fail(dataset, monkeypatch):
    read = verify_module.read_index

    def without_flac(*arguments: Any) -> Any:
        return (entry for entry in read(*arguments) if not entry["uri"].endswith("b.flac"))

    monkeypatch.setattr(verify_module, "read_index", without_flac)
    report = verify_here(dataset)
    assert not report.passed
    assert report.rows == 15 * (len(RECORDINGS) - 1)
    [(reason, recordings)] = report.failed.items()
    assert reason == "the index does not hold the recording"
    [(uri, rows)] = recordings.items()
    assert (uri.endswith("b.flac"), rows) == (True, 15)
    assert "failed 15 rows: the index does not hold the recording" in verification_text("d", report)


@pytest.mark.parametrize("section", ["failed", pytest.param("skipped", marks=pytest.mark.slow)])
def test_a_source_that_cannot_be_read_fails_or_is_skipped(tmp_path, section):
    """Failed: the bytes change, but not the time. Skipped: the store cannot read the path."""
    songs, output = write_songs(tmp_path / "songs"), tmp_path / "dataset"
    extract_here(songs, output, *SETTINGS)
    path = songs / "b.flac"
    if section == "failed":
        data, stat = bytearray(path.read_bytes()), path.stat()
        data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        path.unlink()
        path.mkdir()
    status, summary = run(output, "--sample", "1000")
    assert status == (1 if section == "failed" else 0)
    [(reason, recordings)] = summary[section].items()
    assert "the source " in reason
    assert recordings == {str(path): 15}
    assert summary["passed"] == (section == "skipped")


def test_rates_at_which_soxr_drifts_are_left_out(tmp_path):
    songs = write_songs(tmp_path / "songs")
    settings = "audio.sample_rate_hz=44099", "mel.n_mels=64"
    extract_here(songs, tmp_path / "dataset", *SETTINGS, *settings)
    status, summary = run(tmp_path / "dataset")
    assert status == 1  # no other rows are in this dataset
    assert "from 44100 to 44099 Hz soxr's position drifts" in "".join(summary["skipped"])


def test_a_recording_too_long_for_memory_is_named(dataset, monkeypatch):
    monkeypatch.setattr(verify_module, "MAX_SAMPLES", 500_000)
    report = verify_here(dataset)
    assert report.passed
    [reason] = report.skipped
    assert reason.startswith("longer than 500,000 samples")
    assert len(report.skipped[reason]) == len(RECORDINGS) - 1


def test_values_that_are_not_numbers_are_beyond_the_tolerance(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "dataset")
    falsify(tmp_path / "dataset", float("nan"))
    status, summary = run(tmp_path / "dataset", "--sample", "1000")
    assert status == 1
    assert [row["largest"] for row in summary["beyond"]] == [None]
    assert sum(result["beyond"] for result in summary["formats"].values()) == 1
