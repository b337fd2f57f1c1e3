"""A file name that is not text, or a bad row of a table, fails only its recording in each run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melmill.transforms.index.tables import read_index
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    failures_of,
    statuses_of,
    write_song,
    write_songs,
)


def path_of(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@pytest.mark.slow
def test_names_in_latin_1_fail_alone_on_real_workers(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 3)
    song = (songs / "0.wav").read_bytes()
    path_of(songs, b"K\xf6ln").mkdir()
    for name in (b"Bj\xf6rk.wav", b"K\xf6ln/a.wav", b"K\xf6ln/b.wav"):
        path_of(songs, name).write_bytes(song)
    settings = [f"--set={setting}" for setting in SMALL]
    command = ("extract", songs, tmp_path / "set", "--workers=2", *settings)
    extracted = melmill_json(*command, status=3)
    assert extracted["failures"] == {"bad_name": 3}
    assert extracted["recordings"] == {"ok": 3, "failed": 3}
    refreshed = refresh_here(songs, tmp_path / "set")
    assert not refreshed.committed
    assert refreshed.difference["waiting"] == 3
    # Follow the advice in the message.
    path_of(songs, b"Bj\xf6rk.wav").rename(songs / "Björk.wav")
    assert melmill_json("refresh", songs, tmp_path / "set", "--workers=2")["recordings"] == {
        "ok": 4,
        "failed": 2,
    }
    assert statuses_of(tmp_path / "set")[str(songs / "Björk.wav")][0] == "ok"


ROWS = [
    "a.wav,,,1",
    "b.wav,0.5,-1,2",
    "b.wav,,-1,2",
    ",,,3",
    "c.wav,inf,,4",
    "d.wav,0,0.5,x",
    "e.wav",
]
MENDED = ["a.wav,,,1", "b.wav,0.5,1,2", "b.wav,,1,2", "c.wav,0,,4", "d.wav,0,0.5,5", "e.wav,,,6"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in "abcde":
        write_song(tmp_path / f"{name}.wav", ord(name))
    return tmp_path / "songs.csv"


def write(table: Path, rows: list[str]) -> None:
    table.write_text("\n".join(["uri,start,end,genre", *rows]) + "\n")


TYPES = (*SMALL, "catalogue.label_types={genre: int64}")


def test_bad_rows_fail_alone_and_are_reported_with_their_lines(table: Path, tmp_path: Path) -> None:
    write(table, ROWS)
    extraction = extract_here(table, tmp_path / "set", *TYPES)
    assert extraction.totals.recordings == {"ok": 1, "failed": 6}
    assert extraction.totals.failures == {"bad_segment": 2, "bad_row": 4}
    store = Store(str(tmp_path / "set"))
    failures = list(read_index(store, require_snapshot(store).index, "failures"))
    assert {failure["stage"] for failure in failures} == {"list"}
    lines = sorted(
        failure["message"].partition(",")[0].partition(" has")[0] for failure in failures
    )
    assert lines == [f"songs.csv line {number}" for number in range(3, 9)]


def test_a_refresh_neither_repeats_nor_loses_bad_rows(table: Path, tmp_path: Path) -> None:
    write(table, ROWS)
    extract_here(table, tmp_path / "set", *TYPES)
    before = failures_of(tmp_path / "set")
    refreshed = refresh_here(table, tmp_path / "set")
    assert not refreshed.committed
    assert failures_of(tmp_path / "set") == before
    write(table, MENDED)
    refresh_here(table, tmp_path / "set")
    assert failures_of(tmp_path / "set") == {}
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *TYPES)
    write(table, ROWS)
    refresh_here(table, tmp_path / "set")
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *TYPES)
