"""Archives as catalogues: the rows of the same files in a folder, and refreshes of one member."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from melmill.transforms.index.tables import read_index
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.refresh.catalogues import SMALL, statuses_of, write_song
from tests.store.test_archives import deflated_zip_of, tar_of, zip_of

MAKERS = {"songs.tar": tar_of, "songs.zip": zip_of, "songs.ZIP": deflated_zip_of}


def song(folder: Path, seed: int) -> bytes:
    write_song(folder / "song.wav", seed, 1.0)
    return (folder / "song.wav").read_bytes()


def content_of(folder: Path, number: int = 4) -> dict[str, bytes]:
    """Return songs with labels, in the order of ``tar cf songs.tar *.wav *.json``."""
    songs = {f"{seed}.wav": song(folder, seed) for seed in range(number)}
    genres = {f"{seed}.json": {"genre": f"g{seed % 2}"} for seed in range(number)}
    return songs | {name: json.dumps(labels).encode() for name, labels in genres.items()}


def write(path: Path, content: Mapping[str, bytes]) -> Path:
    path.write_bytes(MAKERS[path.name](content))
    return path


def unpack(folder: Path, content: Mapping[str, bytes]) -> Path:
    """Write the same songs to a folder, with a table of their labels."""
    folder.mkdir()
    lines = ["uri,genre"]
    for name, data in content.items():
        (folder / name).write_bytes(data)
        if name.endswith(".json"):
            lines.append(f"{name.removesuffix('.json')}.wav,{json.loads(data)['genre']}")
    (folder / "songs.csv").write_text("\n".join(lines) + "\n")
    return folder / "songs.csv"


def rows_by_song(dataset: Path) -> dict[tuple[str, int], tuple[str, bytes]]:
    columns = ["uri", "chunk_index", "genre", "mel"]
    rows = DeltaTable(str(dataset)).to_pyarrow_table(columns=columns).to_pylist()
    return {
        (row["uri"].rpartition("/")[2].rpartition("#")[2], row["chunk_index"]): (
            row["genre"],
            np.array(row["mel"], np.float32).tobytes(),
        )
        for row in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["songs.tar", "songs.ZIP"])
def test_an_archive_gives_the_rows_of_its_files(tmp_path: Path, name: str) -> None:
    content = content_of(tmp_path)
    extract_here(unpack(tmp_path / "folder", content), tmp_path / "expected", *SMALL)
    archive = write(tmp_path / name, content)
    extraction = extract_here(archive, tmp_path / "actual", *SMALL)
    assert extraction.totals.recordings == {"ok": 4}
    assert rows_by_song(tmp_path / "actual") == rows_by_song(tmp_path / "expected")
    uris = {row["uri"] for row in _index(tmp_path / "actual")}
    assert uris == {f"{archive}#{seed}.wav" for seed in range(4)}


def _index(dataset: Path) -> list[dict[str, object]]:
    store = Store(str(dataset))
    return list(read_index(store, require_snapshot(store).index, "recordings"))


@pytest.mark.parametrize(
    "name",
    [
        "songs.tar",
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("songs.zip", "songs.ZIP")),
    ],
)
def test_a_refresh_computes_only_the_member_that_changed(tmp_path: Path, name: str) -> None:
    content = content_of(tmp_path)
    archive = write(tmp_path / name, content)
    output = tmp_path / "dataset"
    extract_here(archive, output, *SMALL)
    before = rows_by_song(output)
    changed = {"new.wav": song(tmp_path, 8), **content, "2.wav": song(tmp_path, 9)}
    write(archive, changed)  # all members behind the new one are at other places
    refresh = refresh_here(archive, output)
    assert refresh.metrics.counters["audio_ms_extracted"] == 2000
    after = rows_by_song(output)
    assert {key[0] for key in before if before[key] != after[key]} == {"2.wav"}
    assert len(statuses_of(output)) == 5
    os.utime(archive, ns=(1, 1))
    assert not refresh_here(archive, output).committed


def test_hostile_and_damaged_members_fail_alone(tmp_path: Path) -> None:
    good = song(tmp_path, 1)
    content = {"../a.wav": good, "b.wav": good[:-100] + b"", "c.wav": b"RIFF", "d.wav": good}
    archive = write(tmp_path / "songs.tar", content)
    archive.write_bytes(archive.read_bytes()[:-2000])  # without its end mark
    extraction = extract_here(archive, tmp_path / "dataset", *SMALL)
    assert extraction.totals.recordings["failed"] >= 3
    assert statuses_of(tmp_path / "dataset")[f"{archive}#d.wav"][0] == "ok"
    assert not (tmp_path.parent / "a.wav").exists()


@pytest.mark.slow
def test_the_command_reads_shards_with_workers_and_verifies_them(tmp_path: Path) -> None:
    for shard in range(3):
        (tmp_path / "shards").mkdir(exist_ok=True)
        content = {f"{shard}{n}.wav": song(tmp_path, 10 * shard + n) for n in range(3)}
        (tmp_path / "shards" / f"{shard:03}.tar").write_bytes(tar_of(content))
    settings = [part for setting in SMALL for part in ("--set", setting)]
    shards, output = tmp_path / "shards" / "*.tar", tmp_path / "dataset"
    extracted = melmill_json("extract", shards, output, "--workers", "2", *settings)
    assert extracted["recordings"]["ok"] == 9
    assert melmill_json("verify", output)["passed"]
