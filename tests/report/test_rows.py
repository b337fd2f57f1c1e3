"""The rows of a report: what ``melmill check`` finds, the failures, and the duplicates."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from melmill.pipelines.check_dataset import check_dataset
from melmill.pipelines.cli.check_texts import recording_json
from melmill.pipelines.profiles import load_profile
from melmill.pipelines.report.rows import finding_rows, write_csv, write_json
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here
from tests.report.datasets import GAPS, dataset, make_dataset, make_songs, reported

__all__ = ["dataset"]

SHARED = ["measure", "value", "limit", "unit", "second", "reason", "cause"]


def found_by_check(dataset: Path, profile: str) -> list[list[Any]]:
    """Return URI and findings of each recording, as ``melmill check --json`` prints them."""
    checked = check_dataset(Store(str(dataset)), load_profile(profile))
    results = [json.loads(recording_json(result)) for result in checked]
    return [[r["uri"], *(f[name] for name in SHARED)] for r in results for f in r["findings"]]


def as_json(dataset: Path, profile: str = "training") -> dict[str, Any]:
    file = io.StringIO()
    write_json(reported(dataset, profile), file)
    parsed: dict[str, Any] = json.loads(file.getvalue())
    return parsed


@pytest.mark.parametrize("profile", ["training", "podcast"])
def test_json_has_what_check_finds(dataset: Path, profile: str) -> None:
    findings = as_json(dataset, profile)["findings"]
    own = [f for f in findings if f["kind"] != "duplicate"]
    assert [[f["uri"], *(f[name] for name in SHARED)] for f in own] == found_by_check(
        dataset, profile
    )
    assert {f["kind"] for f in own} == {"defect", "failure"}
    assert all(f["recording_id"] for f in own)


def test_csv_has_the_same_cells_as_json(dataset: Path) -> None:
    file = io.StringIO()
    number = write_csv(reported(dataset), file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    findings = as_json(dataset)["findings"]
    assert len(rows) == number == len(findings)
    for row, finding in zip(rows, findings, strict=True):
        for name, value in finding.items():
            is_truth = isinstance(value, bool)
            text = str(value).lower() if is_truth else "" if value is None else str(value)
            assert row[name] == text


def test_a_dropout_is_at_its_second(dataset: Path) -> None:
    rows = [row for row in finding_rows(reported(dataset)) if row.measure == "gaps.count"]
    seconds = {Path(row.uri).name: row.second for row in rows}
    for name, second in GAPS.items():
        assert seconds[name] == pytest.approx(second, abs=0.01)


def test_copies_are_rows_with_both_recordings(dataset: Path) -> None:
    rows = [row for row in finding_rows(reported(dataset)) if row.kind == "duplicate"]
    (index,) = (dataset / "index").iterdir()
    stored = pq.read_table(index / "matches-00000.parquet").to_pylist()
    found = {(frozenset((r.recording_id, r.other_recording_id)), r.cause, r.value) for r in rows}
    assert found == {(frozenset((m["first"], m["second"])), m["kind"], m["error"]) for m in stored}
    names = {Path(uri).name for row in rows for uri in (row.uri, row.other_uri)}
    assert names == {"good.flac", "copy.wav", "copy-of-copy.wav"}
    assert "-0.0" not in {str(row.second) for row in rows}


def test_json_describes_the_report(dataset: Path) -> None:
    report = as_json(dataset)
    assert (report["dataset"], report["version"]) == (str(dataset), 0)
    assert (report["profile"], report["command"]) == ("training", "melmill report")
    assert report["committed"].endswith("+00:00")
    (gaps,) = (limit for limit in report["limits"] if limit["measure"] == "gaps.count")
    assert (gaps["max"], gaps["reason"], gaps["is_measured"]) == (0, "dropouts", True)


def test_a_dataset_without_measures_has_only_failures(tmp_path: Path) -> None:
    report = as_json(make_dataset(tmp_path, "quality=off"))
    assert {f["kind"] for f in report["findings"]} == {"failure"}
    assert not any(limit["is_measured"] for limit in report["limits"])


@pytest.mark.slow
def test_limits_of_missing_measures_are_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    songs, output = make_songs(tmp_path / "songs"), tmp_path / "dataset"
    extract_here(songs, output, "quality=basic", "limits.max_failure_ratio=0.5")
    path = tmp_path / "own.yaml"
    path.write_text(
        "rules:\n  - {measure: loudness.integrated, max: -90}\n  - {measure: gaps.count, max: 0}\n"
    )
    report = as_json(output, str(path))
    assert {limit["measure"]: limit["is_measured"] for limit in report["limits"]} == {
        "loudness.integrated": False,
        "gaps.count": True,
    }
    defects = {f["measure"] for f in report["findings"] if f["kind"] == "defect"}
    assert defects == {"gaps.count"}
