"""Test `select` and `melmill measure`: recordings are selected by their measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import melmill
from melmill.pipelines.cli.pipeline_texts import extraction_json, extraction_text, plan_text
from melmill.pipelines.cli.snapshot_texts import refresh_plan_text, refresh_text
from melmill.pipelines.extract import Extraction
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here, refresh_here
from tests.pipeline_runs import melmill as command

RATE = 22_050
LOUD = "select=level.peak > -10"
SETTINGS = "limits.max_failure_ratio=1"


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Return songs of six levels, a silent one, a short one and a broken one."""
    folder = tmp_path / "songs"
    folder.mkdir()
    song = signals.song(7, RATE)
    song /= np.abs(song).max()
    for number, level_db in enumerate((-1, -5, -9, -15, -25, -35)):
        name = f"song{number}.{('wav', 'flac', 'mp3')[number % 3]}"
        signals.write_audio(folder / name, song * 10 ** (level_db / 20), RATE)
    signals.write_audio(folder / "silent.wav", np.zeros(4 * RATE), RATE)
    signals.write_audio(folder / "short.ogg", song[: RATE // 2], RATE)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    return folder


def statuses(dataset: Path) -> dict[str, tuple[str, str | None]]:
    table = melmill.open(dataset).recordings(["uri", "status", "deselected_by"])
    rows = table.to_pylist()
    return {Path(row["uri"]).name: (row["status"], row["deselected_by"]) for row in rows}


def rows_of(dataset: Path) -> dict[tuple[str, int], Any]:
    opened, rows = melmill.open(dataset), {}
    for split in opened.rows:
        table = opened.as_arrow(split).to_table(["uri", "chunk_index", "mel", "peak_dbfs"])
        rows |= {(row["uri"], row["chunk_index"]): row for row in table.to_pylist()}
    return rows


def measures_of(dataset: Path) -> dict[str, Any]:
    table = melmill.open(dataset).recordings(["uri", "measures"])
    return {row["uri"]: row["measures"] for row in table.to_pylist()}


def changes(extraction: Extraction) -> dict[str, int]:
    return {k: n for k, n in extraction.difference.items() if k != "examples" and n}


def decoded_ms(extraction: Extraction) -> int:
    return extraction.metrics.counters.get("audio_ms_extracted", 0)


def test_only_what_is_selected_has_rows_and_all_is_measured(songs, tmp_path):
    extract_here(songs, tmp_path / "all", SETTINGS)
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD, "chunk.short=drop")
    expected = {f"song{n}.{('wav', 'flac', 'mp3')[n % 3]}" for n in range(3)}
    found = statuses(tmp_path / "set")
    assert {name for name, (status, _) in found.items() if status == "ok"} == expected
    refused = {name for name, status in found.items() if status == ("deselected", "level.peak")}
    assert refused == {"song3.wav", "song4.flac", "song5.mp3", "silent.wav"}
    assert (found["short.ogg"], found["broken.flac"]) == (("skipped", None), ("failed", None))
    every = rows_of(tmp_path / "all")
    selected = {key: row for key, row in every.items() if Path(key[0]).name in expected}
    assert rows_of(tmp_path / "set") == selected
    measured = measures_of(tmp_path / "set")
    for uri, measures in measures_of(tmp_path / "all").items():
        if Path(uri).name != "short.ogg":
            assert measured[uri] == measures


@pytest.mark.parametrize(
    "features", ["mel", pytest.param("features=[{name: mfcc, kind: mfcc}]", marks=pytest.mark.slow)]
)
def test_another_selection_extracts_only_what_is_newly_selected(songs, tmp_path, features):
    more = [] if features == "mel" else [features]
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD, *more)
    before = rows_of(tmp_path / "set") if not more else {}
    wider = refresh_here(songs, tmp_path / "set", "select=level.peak > -20")
    assert changes(wider) == {"selected": 1, "unchanged": 8, "waiting": 1}
    assert decoded_ms(wider) == pytest.approx(7000, abs=1100)  # chunks of one song
    if not more:
        assert before.items() <= rows_of(tmp_path / "set").items()
    narrower = refresh_here(songs, tmp_path / "set", "select=level.peak > -3 and level.peak < 0")
    assert changes(narrower) == {"deselected": 3, "unchanged": 6, "waiting": 1}
    assert decoded_ms(narrower) == 0
    extract_here(
        songs, tmp_path / "fresh", SETTINGS, "select=level.peak > -3 and level.peak < 0", *more
    )
    assert statuses(tmp_path / "set") == statuses(tmp_path / "fresh")
    assert measures_of(tmp_path / "set") == measures_of(tmp_path / "fresh")
    if not more:
        assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")
    everything = refresh_here(songs, tmp_path / "set", "select=null")
    assert changes(everything) == {"selected": 6, "unchanged": 3, "waiting": 1}
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []


def test_the_same_selection_has_nothing_to_do_and_new_recordings_are_selected(songs, tmp_path):
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD)
    assert not refresh_here(songs, tmp_path / "set").committed
    loud, quiet = 0.9 * signals.noise(4, RATE, 1), 0.001 * signals.noise(4, RATE, 2)
    signals.write_audio(songs / "loud.wav", 5 * loud, RATE)
    signals.write_audio(songs / "quiet.wav", quiet, RATE)
    # A deselected song changes, and is loud now; a loud one is quiet.
    song = signals.song(5, RATE, seed=3)
    signals.write_audio(songs / "song5.mp3", song / np.abs(song).max(), RATE)
    signals.write_audio(songs / "song0.wav", 0.01 * song, RATE)
    refresh_here(songs, tmp_path / "set")
    found = statuses(tmp_path / "set")
    assert [found[name][0] for name in ("loud.wav", "song5.mp3")] == ["ok", "ok"]
    assert [found[name][0] for name in ("quiet.wav", "song0.wav")] == ["deselected"] * 2
    extract_here(songs, tmp_path / "fresh", SETTINGS, LOUD)
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")


@pytest.mark.slow
def test_other_features_and_a_higher_quality_keep_what_is_deselected(songs, tmp_path):
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD)
    refresh_here(songs, tmp_path / "set", "mel.n_mels=64")
    assert statuses(tmp_path / "set")["song5.mp3"] == ("deselected", "level.peak")
    loud = "select=level.peak > -10 and loudness.integrated > -100"
    refresh_here(songs, tmp_path / "set", "quality=full", loud)
    found = statuses(tmp_path / "set")
    assert found["silent.wav"] == ("deselected", "level.peak")
    extract_here(songs, tmp_path / "fresh", SETTINGS, "mel.n_mels=64", "quality=full", loud)
    assert found == statuses(tmp_path / "fresh")
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")
    assert measures_of(tmp_path / "set") == measures_of(tmp_path / "fresh")


def test_labels_of_deselected_recordings_follow_the_catalogue(songs, tmp_path):
    names = [f"song{n}.{('wav', 'flac', 'mp3')[n % 3]}" for n in range(6)]
    table = tmp_path / "songs.csv"
    for genre, selection in (("rock", LOUD), ("pop", "select=level.peak > -3")):
        lines = [f"{songs}/{name},{genre}" for name in names]
        table.write_text("\n".join(["uri,genre", *lines]))
        made = refresh_here if (tmp_path / "set").exists() else extract_here
        made(table, tmp_path / "set", selection)
    extract_here(table, tmp_path / "fresh", "select=level.peak > -3")
    columns = ["uri", "labels_digest", "split", "status"]
    tables = [melmill.open(tmp_path / n).recordings(columns) for n in ("set", "fresh")]
    assert tables[0].to_pylist() == tables[1].to_pylist()


@pytest.mark.parametrize("damaged", ["fail", "keep"])
def test_damage_is_found_when_a_recording_is_measured(songs, tmp_path, damaged):
    whole = (songs / "song1.flac").read_bytes()
    (songs / "cut.flac").write_bytes(whole[: len(whole) * 3 // 4])
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD, f"limits.damaged={damaged}")
    assert (
        statuses(tmp_path / "set")["cut.flac"][0] == {"fail": "failed", "keep": "partial"}[damaged]
    )
    extract_here(songs, tmp_path / "all", SETTINGS, f"limits.damaged={damaged}")
    every = rows_of(tmp_path / "all")
    assert rows_of(tmp_path / "set").items() <= every.items()


def test_a_selection_needs_what_is_measured(songs, tmp_path):
    with pytest.raises(ConfigError, match=r"set quality: full"):
        extract_here(songs, tmp_path / "set", "select=hum.level < 3")
    with pytest.raises(ConfigError, match=r"quality: 'off': basic, full or a list"):
        extract_here(songs, tmp_path / "set", "quality=off", "select=true")
    with pytest.raises(ConfigError, match=r"needs basic, full or a list"):
        melmill.measure(songs, tmp_path / "set", settings=["quality=off"])
    with pytest.raises(ConfigError, match=r"melmill measure selects nothing"):
        melmill.measure(songs, tmp_path / "set", settings=[LOUD])
    with pytest.raises(ConfigError, match=r"did you mean level\.peak\?"):
        extract_here(songs, tmp_path / "set", "select=level.peek < 3")


def test_a_selection_that_refuses_all_makes_a_dataset_without_rows(songs, tmp_path):
    made = extract_here(songs, tmp_path / "set", SETTINGS, "select=level.peak > 50")
    assert (made.totals.rows, made.totals.recordings["deselected"]) == (0, 8)
    assert refresh_here(songs, tmp_path / "set", LOUD).totals.recordings["ok"] == 4


def test_measure_first_then_extract_what_the_readings_select(songs, tmp_path):
    dataset, measure = tmp_path / "my set", ["--set", SETTINGS, "--set", "quality=[full, acoustic]"]
    measured = command("measure", songs, dataset, *measure)
    assert measured.returncode == 3, measured.stderr  # one is broken
    assert f"Committed version 0 of {dataset}: 8 recordings measured" in measured.stdout
    assert {status for status, _ in statuses(dataset).values()} == {"deselected", "failed"}
    assert not list(dataset.glob("split=*"))
    again = melmill.measure(songs, dataset, settings=measure[1::2]).extraction
    assert not again.committed
    (advice,) = [line for line in measured.stdout.splitlines() if "select=null" in line]
    assert advice.split("   #")[0].strip() == (
        f"melmill refresh {songs} '{dataset}' --set select=null"
    )
    refresh_here(songs, dataset, LOUD)
    assert statuses(dataset)["song0.wav"][0] == "ok"
    with pytest.raises(DatasetError, match="holds a dataset with rows"):
        melmill.measure(songs, dataset)
    assert changes(refresh_here(songs, dataset, "select=null"))["selected"] == 4
    assert statuses(dataset)["song5.mp3"][0] == "ok"


def test_the_plan_says_that_the_selection_comes_later(songs):
    planned = melmill.plan(songs, settings=[LOUD, SETTINGS], workers=1)
    assert planned["select"] == "level.peak > -10"
    text = plan_text("songs", planned)
    assert "before select, which measures each recording first: level.peak > -10" in text


def test_the_texts_about_an_extraction_count_what_is_deselected(songs, tmp_path):
    made = extract_here(songs, tmp_path / "set", LOUD, SETTINGS)
    assert extraction_json("set", made)["recordings"]["deselected"] == 4
    assert "; 4 deselected by select" in extraction_text("set", made)
    card = (tmp_path / "set" / "README.md").read_text()
    assert "4 are refused by `select: level.peak > -10`." in card
    changed = refresh_here(songs, tmp_path / "set", "select=level.peak > -3")
    assert "deselected by another select; their rows are removed" in refresh_text("set", changed)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["select=false", "limits.damaged=keep"], ["select=true"]),
        *(
            pytest.param(before, after, marks=pytest.mark.slow)
            for before, after in [
                (["select=false", "limits.damaged=keep"], ["select=true", "limits.damaged=fail"]),
                (["select=null", "limits.damaged=keep"], ["select=level.peak > 50"]),
                (["select=false", "limits.damaged=keep"], ["limits.damaged=fail"]),
                ([LOUD, "limits.damaged=keep"], ["select=level.peak > 50 and level.rms > 50"]),
                (["select=false", "limits.damaged=keep"], ["mel.n_mels=64"]),
            ]
        ),
    ],
)
def test_damage_stays_known_whatever_is_selected(tmp_path, before, after):
    songs = tmp_path / "songs"
    songs.mkdir()
    song = signals.song(7, RATE)
    for name in ("whole.flac", "cut.flac"):
        signals.write_audio(songs / name, song, RATE)
    (songs / "cut.flac").write_bytes((songs / "cut.flac").read_bytes()[:-60_000])
    extract_here(songs, tmp_path / "set", SETTINGS, *before)
    refresh_here(songs, tmp_path / "set", *after)
    settings = {setting.partition("=")[0]: setting for setting in (*before, *after)}
    extract_here(songs, tmp_path / "fresh", SETTINGS, *settings.values())
    assert statuses(tmp_path / "set") == statuses(tmp_path / "fresh")
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")
    opened = [melmill.open(tmp_path / name) for name in ("set", "fresh")]
    uris = [dataset.failures().column("uri").to_pylist() for dataset in opened]
    assert uris[0] == uris[1]
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []


@pytest.mark.parametrize(
    "before", [pytest.param("select=true", marks=pytest.mark.slow), "select=false"]
)
def test_a_new_split_and_a_new_selection_come_together(songs, tmp_path, before):
    table = tmp_path / "songs.csv"
    names = ["song0.wav", "song3.wav", "song5.mp3"]
    for split in ("train", "test"):
        rows = [f"{songs}/{name},{split}" for name in names]
        table.write_text("\n".join(["uri,split", *rows]))
        if split == "train":
            extract_here(table, tmp_path / "set", before)
        else:
            refresh_here(table, tmp_path / "set", "select=level.peak > -20")
    splits = melmill.open(tmp_path / "set").recordings(["split"]).column("split").to_pylist()
    assert splits == ["test"] * 3


@pytest.mark.slow
def test_other_readings_make_another_index(songs, tmp_path):
    melmill.measure(songs, tmp_path / "set", settings=[SETTINGS])
    first = set(tmp_path.glob("set/index/*"))
    more = ["quality=full", SETTINGS, "output.formats=[parquet,tfrecord]"]
    melmill.measure(songs, tmp_path / "set", settings=more, overwrite=True)
    assert set(tmp_path.glob("set/index/*")) > first


def test_extract_refuses_another_selection_and_says_what_changes_it(songs, tmp_path):
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD)
    with pytest.raises(DatasetError, match=r"another select \(melmill refresh --set select="):
        extract_here(songs, tmp_path / "set", SETTINGS)
    assert not extract_here(songs, tmp_path / "set", SETTINGS, LOUD).committed


def test_a_plan_of_a_refresh_decodes_nothing(songs, tmp_path):
    extract_here(songs, tmp_path / "set", SETTINGS, LOUD)
    signals.write_audio(songs / "quiet.wav", 1e-3 * signals.noise(4, RATE), RATE)
    planned = melmill.plan_refresh(songs, tmp_path / "set", workers=1)
    assert sum(planned["made"]["rows"].values()) == 1  # nothing says yet that it is quiet
    assert "before select, which measures each recording first" in refresh_plan_text("x", planned)


def test_a_long_recording_has_the_time_of_its_spans(tmp_path, monkeypatch):
    (tmp_path / "songs").mkdir()
    signals.write_audio(tmp_path / "songs/long.wav", signals.song(60, RATE), RATE)
    seen = []
    call = DecoderProcess.call

    def noting(self, limit_s, function, *arguments):
        seen.append((function.__name__, limit_s))
        return call(self, limit_s, function, *arguments)

    monkeypatch.setattr(DecoderProcess, "call", noting)
    extract_here(tmp_path / "songs", tmp_path / "set", "select=true", "output.shard_megabytes=0.25")
    # 20 rows of 50 kB are four times a shard.
    assert dict(seen)["measure_spans"] == 4 * 600
