"""One row for each segment of a catalogue: padded, with its length, or a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import write_song, write_table

RATE = 4000
SETTINGS = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=1",
    "features=[{name: samples, kind: waveform, dtype: int16}]",
    "split.fractions={train: 1.0}",
    "limits.max_failure_ratio=0.5",
)
#: Start and end in seconds: short, as long as a chunk, longer.
SEGMENTS = [(0.25, 0.75), (1.0, 2.0), (2.0, 3.5)]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    write_song(tmp_path / "songs/a.wav", 1, 4.0)
    rows = [{"uri": "a.wav", "start": s, "end": e} for s, e in SEGMENTS]
    return write_table(tmp_path / "songs/segments.jsonl", rows)


def rows(dataset: Path) -> list[dict[str, Any]]:
    table = melmill.open(dataset).as_arrow().to_table().sort_by("start_sample")
    result: list[dict[str, Any]] = table.to_pylist()
    return result


def expected_row(catalogue: Path, start: float, end: float) -> list[int]:
    samples, _ = soundfile.read(catalogue.with_name("a.wav"), dtype="int16")
    chunk = samples[round(start * RATE) : round(end * RATE)][:RATE]
    return np.pad(chunk, (0, RATE - len(chunk))).tolist()


def test_each_segment_is_a_row_or_a_failure(catalogue: Path, tmp_path: Path) -> None:
    extraction = extract_here(catalogue, tmp_path / "set", *SETTINGS, "chunk.long=fail")
    assert extraction.totals.failures == {"too_long": 1}
    stored = rows(tmp_path / "set")
    assert [(row["start_sample"], row["valid_samples"]) for row in stored] == [
        (1000, 2000),
        (4000, 4000),
    ]
    for row, segment in zip(stored, SEGMENTS, strict=False):
        assert row["samples"] == expected_row(catalogue, *segment)
    (failure,) = melmill.open(tmp_path / "set").failures().to_pylist()
    assert failure["message"] == "1.5 s, and chunk.seconds allows 1 s, because chunk.long is fail"
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []


def test_the_first_chunk_of_a_longer_segment(catalogue: Path, tmp_path: Path) -> None:
    extract_here(catalogue, tmp_path / "set", *SETTINGS, "chunk.long=first", "chunk.tail=pad")
    stored = rows(tmp_path / "set")
    assert [row["valid_samples"] for row in stored] == [2000, 4000, 4000]
    for row, segment in zip(stored, SEGMENTS, strict=True):
        assert row["samples"] == expected_row(catalogue, *segment)
    assert melmill.verify(tmp_path / "set").passed


def test_the_failure_ends_when_the_recipe_allows_it(catalogue: Path, tmp_path: Path) -> None:
    """A failure says: change chunk.seconds or chunk.long; the next refresh then has the row."""
    extract_here(catalogue, tmp_path / "set", *SETTINGS, "chunk.long=fail")
    for setting, number in (("chunk.long=first", 3), ("chunk.long=cut", 3)):
        extraction = refresh_here(catalogue, tmp_path / "set", setting)
        assert not extraction.totals.failures
        assert len(rows(tmp_path / "set")) == number
    refresh_here(catalogue, tmp_path / "set", "chunk.long=fail", "chunk.seconds=1.5")
    assert [row["valid_samples"] for row in rows(tmp_path / "set")] == [2000, 4000, 6000]


def test_a_segment_that_is_rounded_to_a_sample_more_is_no_longer(tmp_path: Path) -> None:
    """A chunk of 0.25 s has 5,512 samples at 22,050 Hz, and a file of 0.25 s 5,513."""
    write_song(tmp_path / "songs/a.wav", 1, 0.25, 44_100)
    settings = ("chunk.seconds=0.25", "chunk.long=fail", SETTINGS[2])
    extraction = extract_here(tmp_path / "songs", tmp_path / "set", *settings)
    assert not extraction.totals.failures
    assert len(rows(tmp_path / "set")) == 1
