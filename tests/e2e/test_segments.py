"""Segments: what is counted, billed and shown is the segment, not its file."""

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
    """Two segments of a second and a half of a file of ten, and what is behind its end."""
    write_song(tmp_path / "a.wav", seconds=10)
    path = tmp_path / "songs.csv"
    path.write_text("uri,start,end\na.wav,1,2.5\na.wav,8.5,10.25\na.wav,9,11\n")
    return path


def test_a_segment_counts_as_long_as_it_is(table: Path, tmp_path: Path) -> None:
    made = extract_here(table, tmp_path / "set", *SMALL)
    assert made.totals.seconds == pytest.approx(3.0)
    assert made.metrics.counters["audio_ms_planned"] == 3000
    assert made.metrics.counters["audio_ms_extracted"] == 3000
    # The third is not known to be bad before it is planned: a second of it is there.
    assert made.metrics.counters["audio_ms_probed"] == 4000
    rows = read_index(Store(str(tmp_path / "set")), made.snapshot.index, "recordings")
    assert sorted(row["seconds"] for row in rows if row["status"] == "ok") == [1.5, 1.5]


def test_a_segment_behind_the_end_is_a_failure(table: Path, tmp_path: Path) -> None:
    made = extract_here(table, tmp_path / "set", *SMALL)
    assert made.totals.recordings == {"ok": 2, "failed": 1}
    assert failures_of(tmp_path / "set") == {str(tmp_path / "a.wav"): "bad_segment"}


def test_a_plan_bills_the_segment(table: Path, tmp_path: Path) -> None:
    planned = plan(make_test_job(table, tmp_path / "set", *SMALL), here())
    assert planned["seconds"] == pytest.approx(3.0)
    assert planned["codec_seconds"] == {"pcm_16": pytest.approx(3.0)}
