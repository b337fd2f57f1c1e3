"""Tests of the texts about results: they are true and complete, and their code runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.cli import pipeline_texts as texts
from melmill.pipelines.extract import Extraction
from melmill.pipelines.run.counters import Distribution, RunMetrics
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.summary import failure_lines, totals_lines
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.totals import SplitContent, Totals
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here

PLAN: dict[str, Any] = {
    "recordings": {"planned": 1000, "failed": 2, "skipped": 3},
    "seconds": 7200.0,
    "chunks": 2400,
    "codec_seconds": {"flac": 7200.0},
    "rows": {"train": 2000, "test": 400},
    "shards": {"train": 7, "test": 1},
    "parquet_bytes": 120_000_000,
    "failures": {"corrupt": 2},
    "examples": {"corrupt": [["/songs/a\nb.wav", "it is broken"]]},
    "cpu_seconds": 100.0,
    "wall_seconds": 61.0,
    "costs": {"dataflow": {"usd": 0.02, "usd_per_1000_hours": 0.128}},
}


MEL = FeatureColumn("mel", (128, 130))


def totals() -> Totals:
    return Totals(
        recordings=Counter(ok=1234, failed=2, skipped=1),
        seconds=7200.0,
        splits={"train": SplitContent(1000, 2000, 3, 4_500_000, 500_000), "a": SplitContent(234)},
        failures=Counter(corrupt=2),
        examples={"corrupt": [("/songs/a\nb.wav", "it is broken")]},
    )


METRICS = RunMetrics(
    {
        "audio_ms_extracted": 1_800_000,
        "bytes_in": 12_500_000,
        "bytes_out": 5_000_000,
        "shards_written": 2,
        "shards_reused": 1,
    },
    {
        "probe_ms": Distribution(10, 200, 10, 30),
        "decode_ms": Distribution(10, 12_000, 10, 3000),
        "write_ms": Distribution(2, 150_000, 10, 3000),
    },
)


def extraction(committed: bool = True) -> Extraction:
    snapshot = Snapshot(3, "index", {}, "/songs", "{}")
    open_snapshot = OpenSnapshot(Store("out"), snapshot).knowing(totals(), RowSchema((MEL,)))
    return Extraction(open_snapshot, committed, {}, False, (MEL,), METRICS)


def test_a_commit_is_reported_with_its_version() -> None:
    text = texts.extraction_text("out", extraction())
    assert text.startswith("Committed version 3 of out\n")
    assert "  1,234 recordings, 2.00 h, 2,000 rows; 1 too short for a chunk\n" in text
    assert "  train: 1,000 recordings, 2,000 rows, 3 shards, 5.0 MB\n" in text
    assert (
        "  this run: 0.50 h of audio (12.5 MB) into 2 shards (5.0 MB), 1 reused; "
        "probe 0.2 s, decode 12 s, write 2.5 min\n"
    ) in text


def test_a_run_with_nothing_to_do_is_reported() -> None:
    text = texts.extraction_text("out", extraction(committed=False))
    assert text.startswith("Nothing to do: version 3 of out holds exactly this already\n")


def test_failures_are_reported_with_examples_on_one_line_each() -> None:
    lines = failure_lines(totals())
    assert lines == ["  2 failed: corrupt", "    '/songs/a\\nb.wav': it is broken"]


def test_without_failures_none_are_reported() -> None:
    assert failure_lines(Totals()) == []
    assert totals_lines(Totals()) == ["  0 recordings, 0.00 h, 0 rows"]


def test_json_says_the_same() -> None:
    result = json.loads(json.dumps(texts.extraction_json("out", extraction())))
    assert (result["dataset"], result["version"], result["committed"]) == ("out", 3, True)
    assert result["recordings"] == {"ok": 1234, "failed": 2, "skipped": 1}
    assert (result["hours"], result["rows"]) == (2.0, 2000)
    assert result["splits"]["train"] == {
        "recordings": 1000,
        "rows": 2000,
        "shards": 3,
        "parquet_bytes": 4_500_000,
        "tfrecord_bytes": 500_000,
    }
    assert list(result["splits"]) == ["a", "train"]
    assert result["metrics"]["counters"]["shards_reused"] == 1
    assert result["metrics"]["distributions"]["decode_ms"]["sum"] == 12_000


def test_a_plan_is_reported_with_its_cost() -> None:
    assert texts.plan_text("songs", PLAN).splitlines() == [
        "songs: 1,000 recordings, 2.00 h, 2,400 chunks, 2,400 rows",
        "  about 120.0 MB of Parquet in 8 shards, and 1.7 min of CPU time: 61 s on this machine",
        "  about $0.02 on dataflow ($0.13 for 1,000 h); list prices, storage and requests not "
        "included",
        "  test: 400 rows, 1 shard",
        "  train: 2,000 rows, 7 shards",
        "  3 skipped: shorter than a chunk (chunk.short is drop)",
        "  2 failed: corrupt",
        "    '/songs/a\\nb.wav': it is broken",
    ]


def test_a_plan_says_that_it_would_be_refused_and_which_splits_are_far_off() -> None:
    about = {"split_warnings": ["split test is empty"], "refused": "all fail"}
    for may_pass, then in ((True, "this may pass"), (False, "change something first")):
        lines = texts.plan_text("songs", PLAN | about | {"refusal_may_pass": may_pass}).splitlines()
        assert f"  melmill extract would commit nothing: all fail; {then}" in lines
        assert "  WARNING: split test is empty" in lines


def test_an_empty_plan_can_be_reported() -> None:
    empty_plan = PLAN | {
        key: {} for key in ("recordings", "rows", "shards", "failures", "examples")
    }
    assert "0 recordings" in texts.plan_text("songs", empty_plan | {"chunks": 0, "seconds": 0.0})


@pytest.mark.parametrize("formats", ["parquet", "parquet, tfrecord"])
def test_the_code_that_is_shown_reads_the_rows(tmp_path: Path, formats: str) -> None:
    if "tfrecord" in formats:
        pytest.importorskip("tensorflow")
    (tmp_path / "it's songs").mkdir()
    signals.write_audio(tmp_path / "it's songs" / "a.wav", signals.song(2.5, 8000), 8000)
    result = extract_here(
        tmp_path / "it's songs",
        tmp_path / "it's out",
        "audio.sample_rate_hz=8000",
        "chunk.seconds=1",
        "chunk.tail=pad",
        "mel.n_mels=16",
        "mel.n_fft=512",
        "split.fractions={train: 1}",
        f"output.formats=[{formats}]",
    )
    code = texts.how_to_read(str(tmp_path / "it's out"), result).partition("\n\n")[2]
    scope: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in code.splitlines()), scope)
    rows = scope["mel"] if "mel" in scope else np.stack([row["mel"] for row in scope["data"]])
    assert rows.shape == (3, 16, 16)
    assert rows.dtype == np.float32
    mask = scope["mask"]
    masks = [mask(row).numpy() for row in scope["data"]] if callable(mask) else list(mask)
    assert sorted(int(one.sum()) for one in masks) == [9, 16, 16]
    assert all(one[:9].all() for one in masks)
