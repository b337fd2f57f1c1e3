"""Rows have the same bits however the work is divided: into shards, or over several refreshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from tests import signals
from tests.pipeline_runs import extract_here, refresh_here

SETTINGS = (
    "mel.n_mels=16",
    "chunk.seconds=0.7",
    "chunk.tail=pad",
    "split.fractions={train: 1.0}",
    "output.row_group_rows=8",
)
RECORDINGS = (("a.flac", 44_100, 31.0), ("b.wav", 48_000, 24.5), ("c.mp3", 44_100, 26.0))


def write_song(folder: Path, name: str, rate_hz: int, seconds: float) -> None:
    seed = ord(name[0])
    sound = signals.song(seconds, rate_hz, seed, 2) + signals.noise(seconds, rate_hz, seed, 2, 0.02)
    signals.write_audio(folder / name, sound, rate_hz)


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for recording in RECORDINGS:
        write_song(folder, *recording)
    return folder


def rows_of(dataset: Path) -> dict[tuple[Any, ...], bytes]:
    """Return the values of every row as bytes, by recording, chunk and channel."""
    rows = polars.read_delta(str(dataset)).to_dicts()
    keys = [(row["uri"], row["chunk_index"], row.get("channel")) for row in rows]
    assert len(set(keys)) == len(rows)
    levels = ("start_sample", "valid_samples", "peak_dbfs", "rms_dbfs")
    values = [[*np.ravel(row["mel"]), *(row[name] for name in levels)] for row in rows]
    return {key: np.array(value).tobytes() for key, value in zip(keys, values, strict=True)}


def count_shards(dataset: Path) -> int:
    return len(list(dataset.glob("split=*/*.parquet")))


@pytest.mark.parametrize(
    ("channels", "rate_hz"),
    [("each", 22_050), pytest.param("mono", 44_099, marks=pytest.mark.slow)],
)
def test_rows_have_the_same_bits_in_shards_of_any_size(songs, tmp_path, channels, rate_hz):
    audio = f"audio.channels={channels}", f"audio.sample_rate_hz={rate_hz}", "mel.f_max_hz=8000"
    sizes = {
        "one": ("output.min_shards=1",),
        "eleven": ("output.min_shards=11",),
        "small": ("output.min_shards=1", "output.shard_megabytes=0.05"),
    }
    rows = {}
    for name, size in sizes.items():
        extract_here(songs, tmp_path / name, *SETTINGS, *audio, *size)
        rows[name] = rows_of(tmp_path / name)
    assert count_shards(tmp_path / "one") == 1 < count_shards(tmp_path / "small")
    assert rows["one"] == rows["eleven"] == rows["small"]


def test_a_refreshed_dataset_has_the_bits_of_a_fresh_extraction(songs, tmp_path):
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    for name, _, _ in RECORDINGS:
        (catalogue / name).symlink_to(songs / name)
        refresh_here(catalogue, tmp_path / "refreshed", *SETTINGS, "output.min_shards=5")
    extract_here(catalogue, tmp_path / "fresh", *SETTINGS, "output.min_shards=3")
    assert rows_of(tmp_path / "refreshed") == rows_of(tmp_path / "fresh")
