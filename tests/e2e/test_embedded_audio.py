"""Parquet files with audio in their rows: the rows of the same files, and refreshes of one row."""

from __future__ import annotations

from pathlib import Path

import pytest

import melmill
from tests.e2e.test_archives import content_of, rows_by_song, song, unpack
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.refresh.catalogues import SMALL, statuses_of
from tests.store.test_embedded import parquet_of


def write(path: Path, songs: dict[str, bytes]) -> Path:
    genres = [f"g{int(name[0]) % 2}" for name in songs]
    path.write_bytes(parquet_of(songs, {"genre": genres}, row_group_size=3))
    return path


def test_rows_are_those_of_the_files_and_one_changed_value_is_one_recording(tmp_path: Path) -> None:
    content = content_of(tmp_path)
    songs = {name: data for name, data in content.items() if name.endswith(".wav")}
    extract_here(unpack(tmp_path / "folder", content), tmp_path / "expected", *SMALL)
    path = write(tmp_path / "songs.parquet", songs)
    extraction = extract_here(path, tmp_path / "actual", *SMALL)
    assert extraction.totals.recordings == {"ok": 4}
    assert rows_by_song(tmp_path / "actual") == rows_by_song(tmp_path / "expected")

    songs["2.wav"] = song(tmp_path, 99)
    # All values but the first two get other places.
    write(path, {"0.wav": songs.pop("0.wav"), "9.wav": song(tmp_path, 9), **songs})
    before = rows_by_song(tmp_path / "actual")
    refresh = refresh_here(path, tmp_path / "actual")
    assert (
        refresh.metrics.counters["audio_ms_extracted"] == 2000
    )  # the new one, and the changed one
    after = rows_by_song(tmp_path / "actual")
    assert {key[0] for key in before if before[key] != after[key]} == {"2.wav"}
    assert len(statuses_of(tmp_path / "actual")) == 5


@pytest.mark.slow
def test_the_command_reads_files_with_workers_and_verifies_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        songs = {f"{n}.wav": song(tmp_path, 10 * number + n) for n in range(2)}
        write(tmp_path / "data" / f"train-{number}.parquet", songs)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    files, output = tmp_path / "data" / "*.parquet", tmp_path / "dataset"
    extracted = melmill_json("extract", files, output, "--workers", "2", *settings)
    assert extracted["recordings"]["ok"] == 4
    assert melmill_json("verify", output)["passed"]
    # A row is named by its URI, as any recording.
    loaded = melmill.load(f"{tmp_path}/data/train-1.parquet#1.wav")
    assert loaded.features().shape[0] > 0
