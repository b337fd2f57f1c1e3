"""Segments: melmill counts, plans and reports the segment, not its whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.pipelines.plan import plan
from melmill.transforms.index.tables import read_index
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, make_test_job
from tests.refresh.catalogues import SMALL, failures_of, write_song


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table of a ten-second file: two segments of 1.5 s, and a segment past its end."""
    write_song(tmp_path / "a.wav", seconds=10)
    path = tmp_path / "songs.csv"
    path.write_text("uri,start,end\na.wav,1,2.5\na.wav,8.5,10.25\na.wav,9,11\n")
    return path


def test_a_segment_counts_with_its_own_length(table: Path, tmp_path: Path) -> None:
    extraction = extract_here(table, tmp_path / "set", *SMALL)
    assert extraction.totals.seconds == pytest.approx(3.0)
    assert extraction.metrics.counters["audio_ms_planned"] == 3000
    assert extraction.metrics.counters["audio_ms_extracted"] == 3000
    # The third segment is counted, too: one second of it exists, and it fails only in planning.
    assert extraction.metrics.counters["audio_ms_probed"] == 4000
    rows = read_index(Store(str(tmp_path / "set")), extraction.snapshot.index, "recordings")
    assert sorted(row["seconds"] for row in rows if row["status"] == "ok") == [1.5, 1.5]


def test_a_segment_past_the_end_is_a_failure(table: Path, tmp_path: Path) -> None:
    extraction = extract_here(table, tmp_path / "set", *SMALL)
    assert extraction.totals.recordings == {"ok": 2, "failed": 1}
    assert failures_of(tmp_path / "set") == {str(tmp_path / "a.wav"): "bad_segment"}


def test_a_plan_counts_the_segment(table: Path, tmp_path: Path) -> None:
    summary = plan(make_test_job(table, tmp_path / "set", *SMALL), here())
    assert summary["seconds"] == pytest.approx(3.0)
    assert summary["codec_seconds"] == {"pcm_16": pytest.approx(3.0)}
