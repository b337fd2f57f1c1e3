"""Tests of what a run counts, and of what the display shows during the run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from melmill.pipelines.extract import Extraction
from melmill.pipelines.run.counters import (
    Distribution,
    RunMetrics,
    display_totals,
    run_metrics,
    watching,
)
from melmill.pipelines.run.progress import Board, showing_progress
from melmill.transforms.beam import metrics
from melmill.transforms.beam.metrics import count, observe_ms
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import RATE, SMALL, write_song
from tests.signals import noise, write_audio

IN_MEMORY = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])


def measured(number: int) -> Iterator[int]:
    count("rows_written", number)
    observe_ms("write_ms", number / 1000)
    yield number


def run(*steps: tuple[str, list[int]]) -> Any:
    pipeline = beam.Pipeline(options=IN_MEMORY)
    for label, numbers in steps:
        _ = pipeline | f"Make{label}" >> beam.Create(numbers) | label >> beam.FlatMap(measured)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def test_what_several_steps_count_is_added_up() -> None:
    result = run_metrics(run(("One", [1, 2, 3]), ("Two", [10, 20])))
    assert result.counters == {"rows_written": 36}
    assert result.distributions == {"write_ms": Distribution(count=5, sum=36, min=1, max=20)}


def test_metrics_are_plain_values_in_json() -> None:
    assert run_metrics(run(("One", [1, 2]))).to_json() == {
        "counters": {"rows_written": 3},
        "distributions": {"write_ms": {"count": 2, "sum": 3, "min": 1, "max": 2}},
    }


def test_counters_make_the_line_that_workers_here_make() -> None:
    board = Board()
    board.sources["runner"] = display_totals(
        {
            "recordings_in.probe": 10,
            "recordings_out.probe": 10,
            "recordings_in.plan": 10,
            "recordings_out.plan": 9,
            "recordings_out.extract": 4,
            "rows_written": 120,
            "audio_ms_probed": 7_200_000,
            "audio_ms_planned": 7_200_000,
            "audio_ms_extracted": 3_600_000,
        }
    )
    assert board.describe().startswith("4/9 recordings, 1.00/2.00 h, 120 rows, ")
    assert ", 1 failed, " in board.describe()
    assert board.share == 0.5


class Silent:
    """The result of a runner that reports no counters before the end of the run."""

    def metrics(self) -> Any:
        return run().metrics()


def test_finished_shards_are_shown_where_a_runner_counts_nothing(
    monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.setattr("melmill.pipelines.run.counters._SECONDS_BETWEEN", 0.05)
    with (
        showing_progress("extract") as address,
        watching(Silent(), address=address, finished=lambda: 7),
    ):
        time.sleep(3)
    assert "extract: 7 shards finished" in capfd.readouterr().err


def test_no_more_than_a_hundred_extensions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    counters: Counter[str] = Counter()
    monkeypatch.setattr(metrics, "count", lambda name, number: counters.update({name: number}))
    known: set[str] = set()
    for number in range(150):
        metrics.count_passed_over(f".{number}", 1, known)
    assert len(counters) == 101
    assert RunMetrics(dict(counters)).passed_over["*"] == 50


def test_a_subtraction_shows_what_a_stage_lost(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    for number in range(3):
        write_song(songs / f"{number}.wav", number)
    write_song(songs / "long.wav", 3, 4.0)
    (songs / "broken.wav").write_bytes(b"RIFF, and nothing more")
    write_audio(songs / "cut.flac", noise(2.0, RATE, 4), RATE)
    (songs / "cut.flac").write_bytes((songs / "cut.flac").read_bytes()[:-2000])
    limits = f"limits.max_duration_hours={3 / 3600}"
    extraction = extract_here(songs, tmp_path / "set", *SMALL, limits)
    assert lost_by_stage(extraction) == {"compare": 0, "probe": 1, "plan": 1, "extract": 1}
    assert extraction.totals.recordings == {"ok": 3, "failed": 3}
    write_song(songs / "new.wav", 9)
    extraction = refresh_here(songs, tmp_path / "set")
    assert lost_by_stage(extraction) == {"compare": 6, "probe": 0, "plan": 0, "extract": 0}


def lost_by_stage(extraction: Extraction) -> dict[str, int]:
    counters = extraction.metrics.counters
    stages = {name.partition(".")[2] for name in counters if name.startswith("recordings_in.")}
    assert counters["recordings_out.list"] == counters["recordings_in.compare"]
    return {
        stage: counters[f"recordings_in.{stage}"] - counters.get(f"recordings_out.{stage}", 0)
        for stage in sorted(stages - {"list"}, key=["compare", "probe", "plan", "extract"].index)
    }
