"""Test the measures of recordings in the index: the real command, on real encoded audio."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pytest

import melmill
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.measuring import measure_recording
from melmill.transforms.measures.readings import by_group
from melmill.transforms.measures.registry import QUALITIES
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


def test_public_readers_query_the_readings(songs, tmp_path):
    extract_here(songs, tmp_path / "set", "limits.max_failure_ratio=1")
    files = str(tmp_path / "set" / "index" / "*" / "recordings-*.parquet")
    query = f"select uri from '{files}' where measures.clipping.share > 0.01"
    (row,) = duckdb.sql(query).fetchall()
    assert row[0].endswith("clipped.wav")
    measures = polars.col("measures").struct
    table = polars.read_parquet(files).filter(
        measures.field("clipping").struct.field("share") > 0.01
    )
    assert table["uri"].to_list() == [row[0]]
    assert not math.isnan(table["seconds"][0])


def test_a_wrong_quality_is_named(songs, tmp_path):
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", "quality=best")
    assert "quality: 'best'" in str(raised.value)
    assert "'off', 'basic' or 'full'" in str(raised.value)
