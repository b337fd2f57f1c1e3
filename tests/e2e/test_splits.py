"""Which split a recording is in when the catalogue grows or the fractions change."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from melmill.pipelines.dataset import Dataset
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

SETTINGS = ("audio.sample_rate_hz=8000", "chunk.seconds=1", "mel.n_mels=8", "mel.n_fft=512")
#: So many shards that long recordings are cut across several shards.
MANY_SHARDS = (*SETTINGS, "output.min_shards=12")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    add_songs(folder, range(8))
    return folder


def add_songs(folder: Path, numbers: range) -> None:
    for number in numbers:
        write_audio(folder / f"{number}.wav", noise(1 + 3 * (number % 4), 8000, number), 8000)


def extract_splits(catalogue: Path, output: Path, *settings: str) -> dict[str, str]:
    """Extract a dataset and return each recording's split; check that it is in no other split."""
    extract_here(catalogue, output, *settings)
    rows = Dataset(output).as_arrow().to_table(columns=["uri", "split"])
    by_uri = rows.group_by("uri").aggregate([("split", "distinct")])
    assert pc.all(pc.equal(pc.list_value_length(by_uri["split_distinct"]), 1)).as_py()
    pairs = zip(by_uri["uri"].to_pylist(), by_uri["split_distinct"].to_pylist(), strict=True)
    return {Path(uri).name: splits_of_uri[0] for uri, splits_of_uri in pairs}


def test_a_recording_stays_in_its_split_as_the_catalogue_grows(
    catalogue: Path, tmp_path: Path
) -> None:
    few = extract_splits(catalogue, tmp_path / "few", *MANY_SHARDS)
    add_songs(catalogue, range(8, 20))
    many = extract_splits(catalogue, tmp_path / "many", *MANY_SHARDS)
    assert len(few) == 8
    assert len(many) == 20
    assert len(set(many.values())) > 1
    assert {name: many[name] for name in few} == few


def test_recordings_move_only_into_a_new_split(catalogue: Path, tmp_path: Path) -> None:
    add_songs(catalogue, range(8, 24))
    two_splits = "split.fractions={train: 0.5, test: 0.5}"
    three_splits = "split.fractions={train: 0.25, test: 0.25, validation: 0.5}"
    before = extract_splits(catalogue, tmp_path / "two", *MANY_SHARDS, two_splits)
    after = extract_splits(catalogue, tmp_path / "three", *MANY_SHARDS, three_splits)
    moved = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert 4 <= len(moved) <= 20
    assert {new_split for _, new_split in moved.values()} == {"validation"}
