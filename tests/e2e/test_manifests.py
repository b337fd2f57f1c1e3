"""Manifests of other tools give the rows that a plain table of the same audio gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tests.catalogue.manifests import cut, recording, supervision, write_lines
from tests.pipeline_runs import extract_here, melmill_json
from tests.refresh.catalogues import SMALL, write_song

#: Segments in seconds of recordings that last two seconds; ``None`` is the whole recording.
PARTS = {"a": (0.25, 1.5), "b": (0.5, 2.0), "c": None}
TEXTS = {"a": "one", "b": "two", "c": "three"}
RECORDINGS = {name: recording(name, f"{name}.wav", 2.0) for name in PARTS}


def plain(folder: Path) -> Path:
    rows = [
        {"uri": f"{name}.wav", "text": TEXTS[name]}
        | ({"start": part[0], "end": part[1]} if part else {})
        for name, part in PARTS.items()
    ]
    return write_lines(folder / "songs.jsonl", rows)


def nemo(folder: Path) -> Path:
    rows = [
        {"audio_filepath": f"{name}.wav", "duration": 2.0, "text": TEXTS[name]}
        | ({"offset": part[0], "duration": part[1] - part[0]} if part else {})
        for name, part in PARTS.items()
    ]
    return write_lines(folder / "train_manifest.json", rows)


def _times(name: str) -> tuple[float, float]:
    start, end = PARTS[name] or (0.0, 2.0)
    return start, end - start


def lhotse_cuts(folder: Path) -> Path:
    rows = []
    for name, audio in RECORDINGS.items():
        start, duration = _times(name)
        spoken = [supervision(name, name, 0, duration, text=TEXTS[name])]
        rows.append(cut(name, audio, start, duration, supervisions=spoken))
    return write_lines(folder / "cuts.jsonl.gz", rows)


def lhotse_supervisions(folder: Path) -> Path:
    write_lines(folder / "x_recordings_dev.jsonl.gz", RECORDINGS.values())
    rows = [supervision(name, name, *_times(name), text=TEXTS[name]) for name in PARTS]
    return write_lines(folder / "x_supervisions_dev.jsonl.gz", rows)


def kaldi(folder: Path) -> Path:
    # Kaldi's segments always have a start and an end; the end -1 is that of the recording.
    lines = {name: PARTS[name] or ("", -1) for name in PARTS if PARTS[name]}
    (folder / "wav.scp").write_text("".join(f"{name} {name}.wav\n" for name in PARTS))
    (folder / "segments").write_text("".join(f"{n} {n} {s} {e}\n" for n, (s, e) in lines.items()))
    (folder / "text").write_text("".join(f"{name} {TEXTS[name]}\n" for name in PARTS))
    (folder / "utt2spk").write_text("".join(f"{name} x\n" for name in PARTS))
    return folder


def semicolons(folder: Path) -> Path:
    lines = [
        f"{name}.wav;{PARTS[name][0] if PARTS[name] else ''};"
        f"{PARTS[name][1] if PARTS[name] else ''};{TEXTS[name]}"
        for name in PARTS
    ]
    path = folder / "excel.csv"
    path.write_text("uri;start;end;text\n" + "\n".join(lines) + "\n")
    return path


def rows_by_chunk(dataset: Path) -> dict[tuple[str, int], Any]:
    columns = ["recording_id", "chunk_index", "uri", "start_sample", "text", "mel"]
    rows = DeltaTable(str(dataset)).to_pyarrow_table(columns=columns).to_pylist()
    return {(row["recording_id"], row["chunk_index"]): row for row in rows}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    for seed, name in enumerate(PARTS):
        write_song(tmp_path / "songs" / f"{name}.wav", seed, 2.0)
    return tmp_path / "songs"


@pytest.mark.parametrize(
    "write",
    [
        nemo,
        *(
            pytest.param(manifest, marks=pytest.mark.slow)
            for manifest in (lhotse_cuts, lhotse_supervisions, semicolons)
        ),
    ],
)
def test_a_manifest_gives_the_rows_of_a_plain_table(
    tmp_path: Path, songs: Path, write: Callable[[Path], Path]
) -> None:
    extract_here(plain(songs), tmp_path / "expected", *SMALL)
    extract_here(write(songs), tmp_path / "actual", *SMALL)
    expected = rows_by_chunk(tmp_path / "expected")
    assert len(expected) > 30
    assert rows_by_chunk(tmp_path / "actual") == expected


@pytest.mark.slow
@pytest.mark.parametrize("write", [nemo, lhotse_cuts, kaldi])
def test_the_command_reads_a_manifest(
    tmp_path: Path, songs: Path, write: Callable[[Path], Path]
) -> None:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    melmill_json("extract", write(songs), tmp_path / "actual", *settings)
    extract_here(plain(songs), tmp_path / "expected", *SMALL)
    actual, expected = (rows_by_chunk(tmp_path / name) for name in ("actual", "expected"))
    if write is kaldi:  # a folder with segments lists only these
        expected = {key: row for key, row in expected.items() if row["text"] != "three"}
    assert actual == expected


def test_a_command_in_a_script_fails_alone_and_is_never_executed(
    tmp_path: Path, songs: Path
) -> None:
    folder = kaldi(songs)
    (folder / "segments").unlink()
    (folder / "wav.scp").write_text(f"a a.wav\nb touch {tmp_path}/executed |\nc c.wav\n")
    extraction = extract_here(folder, tmp_path / "dataset", *SMALL)
    assert extraction.totals.recordings == {"ok": 2, "failed": 1}
    assert not (tmp_path / "executed").exists()
