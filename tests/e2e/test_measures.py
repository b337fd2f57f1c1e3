"""Test the measures of recordings in the index: the real command, on real encoded audio."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pytest

import melmill
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.measuring import measure_recording
from melmill.transforms.measures.registry import QUALITIES, by_group
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.pipeline_runs import extract_here, refresh_here

RATE = 22_050


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    song = signals.song(9.4, RATE, channels=2)
    clipped = np.clip(4 * song / np.abs(song).max(), -0.8, 0.8)
    signals.write_audio(folder / "song.flac", song, RATE)
    signals.write_audio(folder / "clipped.wav", clipped, RATE)
    signals.write_audio(folder / "short.ogg", song[: RATE // 2], RATE)
    signals.write_audio(folder / "silent.wav", np.zeros(4 * RATE), RATE)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    return folder


def measures_of(dataset: Path) -> dict[str, Any]:
    table = melmill.open(dataset).recordings(["uri", "measures"])
    return {Path(row["uri"]).name: row["measures"] for row in table.to_pylist()}


def expected(path: Path, quality: Any) -> dict[str, Any]:
    return by_group(measure_recording(StoredObject(str(path)), QUALITIES[quality])[1])


def without_nulls(measures: dict[str, Any]) -> dict[str, Any]:
    """Return readings without those that are not defined, which a table cannot tell from none."""
    groups = {
        group: {name: value for name, value in (readings or {}).items() if value is not None}
        for group, readings in measures.items()
    }
    return {group: readings for group, readings in groups.items() if readings}


@pytest.mark.parametrize("quality", ["basic", "full"])
def test_the_index_has_the_readings_of_each_recording(songs, tmp_path, quality):
    extract_here(
        songs,
        tmp_path / "set",
        f"quality={quality}",
        "limits.max_failure_ratio=1",
        "output.min_shards=1",
    )
    measures = measures_of(tmp_path / "set")
    for name in ("song.flac", "clipped.wav", "short.ogg", "silent.wav"):
        assert without_nulls(measures[name]) == without_nulls(expected(songs / name, quality)), name
    assert measures["broken.flac"] is None
    assert measures["clipped.wav"]["clipping"]["share"] > 0.01 > 1e-9
    assert measures["song.flac"]["clipping"]["share"] < 1e-4
    assert (measures["song.flac"]["loudness"] or {}).get("integrated") is None or quality == "full"


def test_readings_do_not_depend_on_the_shards(songs, tmp_path):
    extract_here(songs, tmp_path / "one", "limits.max_failure_ratio=1", "output.min_shards=1")
    extract_here(
        songs,
        tmp_path / "many",
        "limits.max_failure_ratio=1",
        "output.min_shards=9",
        "output.shard_megabytes=0.1",
    )
    spread = melmill.open(tmp_path / "many").recordings(["uri", "shards"]).to_pylist()
    assert max(len(row["shards"]) for row in spread) > 1
    assert measures_of(tmp_path / "many") == measures_of(tmp_path / "one")


def test_quality_off_measures_nothing(songs, tmp_path):
    extract_here(songs, tmp_path / "set", "quality=off", "limits.max_failure_ratio=1")
    assert set(measures_of(tmp_path / "set").values()) == {None}


def test_rows_are_the_same_whatever_is_measured(songs, tmp_path):
    digests = set()
    for quality in ("off", "basic"):
        dataset = tmp_path / quality
        extract_here(songs, dataset, f"quality={quality}", "limits.max_failure_ratio=1")
        digests.add(tuple(sorted(path.name for path in dataset.rglob("part-*"))))
    assert len(digests) == 1


def test_a_refresh_keeps_the_readings_of_what_did_not_change(songs, tmp_path):
    catalogue, dataset = tmp_path / "songs", tmp_path / "set"
    catalogue.mkdir()
    for name in ("song.flac", "clipped.wav"):
        (catalogue / name).write_bytes((songs / name).read_bytes())
    extract_here(catalogue, dataset)
    before = measures_of(dataset)
    signals.write_audio(catalogue / "new.wav", signals.tone(440, 4, RATE), RATE)
    refresh_here(catalogue, dataset)
    after = measures_of(dataset)
    assert {name: after[name] for name in before} == before
    assert without_nulls(after["new.wav"]) == without_nulls(
        expected(catalogue / "new.wav", "basic")
    )
    # Another recipe computes all rows again; the readings are those of the same files.
    refresh_here(catalogue, dataset, "mel.n_mels=40")
    assert measures_of(dataset) == after


def test_a_file_that_moved_keeps_its_readings(songs, tmp_path):
    catalogue, dataset = tmp_path / "songs", tmp_path / "set"
    catalogue.mkdir()
    (catalogue / "a.flac").write_bytes((songs / "song.flac").read_bytes())
    (catalogue / "b.wav").write_bytes((songs / "clipped.wav").read_bytes())
    setting = "catalogue.content_hashes=true", "refresh.max_removed_ratio=1"
    extract_here(catalogue, dataset, *setting)
    before = measures_of(dataset)
    (catalogue / "a.flac").rename(catalogue / "c.flac")
    refresh_here(catalogue, dataset, *setting)
    after = measures_of(dataset)
    assert after == {"b.wav": before["b.wav"], "c.flac": before["a.flac"]}
    assert after["c.flac"]["level"]["peak"] is not None


@pytest.mark.slow
def test_an_attempt_that_measured_less_is_measured_again(songs, tmp_path, monkeypatch):
    settings = "limits.max_failure_ratio=1", "output.min_shards=1"

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("melmill.pipelines.extract.finish", fail)
        with pytest.raises(ZeroDivisionError):
            extract_here(songs, tmp_path / "set", "quality=off", *settings)
    extract_here(songs, tmp_path / "set", "quality=basic", *settings)
    assert measures_of(tmp_path / "set")["song.flac"] is not None


def test_a_higher_quality_measures_what_is_there_and_computes_no_feature(
    songs, tmp_path, monkeypatch
):
    catalogue, dataset = tmp_path / "songs", tmp_path / "set"
    catalogue.mkdir()
    for name in ("song.flac", "clipped.wav"):
        (catalogue / name).write_bytes((songs / name).read_bytes())
    extract_here(catalogue, dataset, "quality=off", "output.min_shards=4")
    digests = melmill.open(dataset).recordings(["uri", "rows_digest"]).to_pylist()
    with monkeypatch.context() as patch:
        # Nothing may be extracted.
        patch.setattr("melmill.transforms.shards.extracting.extract_and_measure", None)
        for quality in ("basic", "full"):
            refresh_here(catalogue, dataset, f"quality={quality}")
            for name, measures in measures_of(dataset).items():
                assert without_nulls(measures) == without_nulls(
                    expected(catalogue / name, quality)
                ), name
    assert melmill.open(dataset).recordings(["uri", "rows_digest"]).to_pylist() == digests
    full = measures_of(dataset)
    # A lower quality changes nothing of what is known.
    refresh_here(catalogue, dataset, "quality=basic")
    assert measures_of(dataset) == full
    assert not refresh_here(catalogue, dataset).committed


@pytest.mark.slow
def test_a_dataset_from_before_there_were_measures_has_nothing_to_do(songs, tmp_path):
    dataset = tmp_path / "set"
    extract_here(songs, dataset, "quality=off", "limits.max_failure_ratio=1")
    commit = dataset / "_delta_log" / f"{0:020}.json"
    text = commit.read_text()
    assert '\\"quality\\":\\"off\\"' in text.replace(" ", "")
    commit.write_text(re.sub(r',\s*\\+"quality\\+":\s*\\+"off\\+"', "", text))
    assert "quality" not in commit.read_text()
    assert not refresh_here(songs, dataset).committed
    assert melmill.open(dataset).statistics


@pytest.mark.slow
def test_shorter_recordings_are_allowed_and_longer_ones_fail(songs, tmp_path):
    extract_here(songs, tmp_path / "set", "limits.max_failure_ratio=1")
    hours = 5 / 3600
    refresh_here(songs, tmp_path / "set", f"limits.max_duration_hours={hours}")
    measures = measures_of(tmp_path / "set")
    assert measures["song.flac"] is None
    assert measures["silent.wav"]["silence"]["share"] == 1.0


def test_public_readers_query_the_readings(songs, tmp_path):
    extract_here(songs, tmp_path / "set", "limits.max_failure_ratio=1")
    recordings = melmill.open(tmp_path / "set").recordings()
    (row,) = duckdb.sql(
        "select uri from recordings where measures.clipping.share > 0.01"
    ).fetchall()
    assert row[0].endswith("clipped.wav")
    measures = polars.col("measures").struct
    table = polars.from_arrow(recordings.drop_columns("tags")).filter(
        measures.field("clipping").struct.field("share") > 0.01
    )
    assert table["uri"].to_list() == [row[0]]


def test_a_wrong_quality_is_named(songs, tmp_path):
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", "quality=best")
    assert "quality: 'best'" in str(raised.value)
    assert "'best': should be one of off, basic, full, or a list" in str(raised.value)
