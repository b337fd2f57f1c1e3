"""Small datasets with many shards and row groups, for loaders."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from melmill.pipelines.dataset import Dataset
from tests.pipeline_runs import extract_here
from tests.sharing import made_once
from tests.signals import noise, write_audio

RATE_HZ = 8000
#: The genre of each recording; its number of rows is 3 more than its number in the list.
GENRES = ["rock", "rock", "folk", "rock", "folk", "rock", "jazz", "rock", "folk"]
#: Number of rows: half a chunk of the last row of each recording is padding.
ROWS = sum(range(3, 3 + len(GENRES)))


def make_dataset(folder: Path, seed: int = 0) -> None:
    """Write a dataset of a few recordings in shards with row groups of four rows."""
    table = folder / "songs.csv"
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["uri", "genre", "number"])
        for number, genre in enumerate(GENRES):
            samples = noise((2.5 + number) * 0.05, RATE_HZ, seed + number)
            write_audio(folder / f"{number}.wav", samples, RATE_HZ)
            lines.writerow([f"{number}.wav", genre, number])
    extract_here(
        *(table, folder / "dataset", f"audio.sample_rate_hz={RATE_HZ}", "chunk.seconds=0.05"),
        *("chunk.tail=pad", "split.fractions={train: 1.0}", "quality=off"),
        *("output.min_shards=3", "output.row_group_rows=4"),
        "features=[{name: samples, kind: waveform}]",
    )


@pytest.fixture(scope="session")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "small", make_dataset) / "dataset"


@pytest.fixture(scope="session")
def small(small_path: Path) -> Dataset:
    return Dataset(small_path)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return a dataset of other recordings with the same columns."""
    return Dataset(
        made_once(tmp_path_factory, "other", lambda folder: make_dataset(folder, 50)) / "dataset"
    )
