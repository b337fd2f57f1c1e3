"""Tests of ``import melmill``: call each public name like a user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import melmill
from tests.signals import song, write_audio

SETTINGS = {"split.fractions": {"train": 1.0}, "chunk.seconds": 1, "output.formats": ["parquet"]}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(3):
        write_audio(folder / f"{seed}.wav", song(2.5, 22_050, seed), 22_050)
    (folder / "bad.wav").write_bytes(b"RIFF, and nothing more")
    return folder


@pytest.fixture(scope="module")
def extracted(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> melmill.ExtractedDataset:
    return melmill.extract(
        songs,
        tmp_path_factory.mktemp("out") / "dataset",
        recipe="librosa",
        settings={**SETTINGS, "limits.max_failure_ratio": 0.5},
        runner="direct",
        workers=1,
    )


def test_extract_gives_the_dataset_and_says_what_happened(
    extracted: melmill.ExtractedDataset, songs: Path
) -> None:
    assert extracted.extraction.committed
    assert extracted.rows == {"train": 6}
    assert extracted.version == 0
    assert repr(extracted).endswith(
        "version 0: committed; recordings: 3 ok, 1 failed; 6 rows>"
    ) or repr(extracted).endswith("version 0: committed; recordings: 1 failed, 3 ok; 6 rows>")
    failures = extracted.failures()
    assert isinstance(failures, pa.Table)
    assert failures["uri"].to_pylist() == [str(songs / "bad.wav")]
    recordings = extracted.recordings(["uri", "status", "rows"])
    assert recordings.column_names == ["uri", "status", "rows"]
    assert sorted(recordings["rows"].to_pylist()) == [0, 2, 2, 2]
    assert extracted.as_arrow("train").count_rows() == 6


def test_a_refresh_with_nothing_to_do_says_so(
    extracted: melmill.ExtractedDataset, songs: Path
) -> None:
    refreshed = melmill.refresh(songs, extracted._store.root, workers=1)
    assert not refreshed.extraction.committed
    assert refreshed.version == 0
    assert "nothing to do" in repr(refreshed)


def test_a_dataset_is_opened_in_any_kept_version(songs: Path, tmp_path: Path) -> None:
    options = {"settings": SETTINGS, "workers": 1}
    melmill.extract(songs / "0.wav", tmp_path / "set", **options)
    melmill.extract(songs / "1.wav", tmp_path / "set", overwrite=True, **options)
    first, current = melmill.open(tmp_path / "set", version=0), melmill.open(tmp_path / "set")
    assert (first.version, current.version) == (0, 1)
    for opened, name in ((first, "0.wav"), (current, "1.wav")):
        uris = opened.as_arrow().to_table(columns=["uri"])["uri"].to_pylist()
        assert uris == [str(songs / name)] * 2
    with pytest.raises(melmill.UserError, match="version 7 is not in its history; kept: 1, 0"):
        melmill.open(tmp_path / "set", version=7)


def test_plan_export_and_verify(extracted: melmill.ExtractedDataset, songs: Path) -> None:
    planned = melmill.plan(songs / "0.wav", settings=SETTINGS, workers=1)
    assert planned["rows"] == {"train": 2}
    root = extracted._store.root
    exported = melmill.export(root, f"{root}-view", "numpy", workers=1)
    assert exported.rows == {"train": 6}
    assert melmill.verify(root, sample=3).passed


def test_load_computes_what_is_stored(extracted: melmill.ExtractedDataset, songs: Path) -> None:
    loaded = melmill.load(songs / "1.wav", melmill.load_config("librosa", ["chunk.seconds=1"]))
    rows = extracted.as_arrow().to_table(columns=["uri", "chunk_index", "mel"]).to_pylist()
    rows = sorted(
        (row["chunk_index"], row["mel"]) for row in rows if row["uri"] == str(songs / "1.wav")
    )
    assert [number for number, _ in rows] == [0, 1]
    stored = np.array([mel for _, mel in rows], np.float32)
    np.testing.assert_array_equal(loaded.features(), stored)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("no-such", {}, "there is no file no-such.*it ships: .*, librosa, "),
        (None, {"mel.n_mel": 3}, "mel.n_mel"),
        (None, "chunk.seconds=5", "must be a mapping, or a list of key=value"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_starts(
    recipe: str | None, settings: dict[str, int], message: str, songs: Path, tmp_path: Path
) -> None:
    with pytest.raises(melmill.UserError, match=message):
        melmill.extract(songs, tmp_path / "set", recipe=recipe, settings=settings)
    assert not (tmp_path / "set").exists()


def test_every_public_name_is_there() -> None:
    for name in melmill.__all__:
        assert getattr(melmill, name) is not None
    assert {*dir(melmill)} == {*melmill.__all__}
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        _ = melmill.extrakt


@pytest.mark.parametrize("use", ["melmill.open", "melmill.load", "melmill.Dataset"])
def test_opening_and_loading_need_no_beam(use: str) -> None:
    program = f"import sys, melmill; {use}; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_costs_nothing() -> None:
    program = "import sys, melmill; sys.exit('numpy' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
