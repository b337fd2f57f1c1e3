"""The records and metrics that a run leaves for monitoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from melmill.pipelines.prometheus import metrics_writer, write_metrics
from melmill.pipelines.run.errors import NothingSubmittedError
from melmill.pipelines.run_records import Run, recording_run
from melmill.transforms.core.errors import ConfigError, ConflictError
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, melmill
from tests.refresh.catalogues import SMALL, write_song, write_songs


def runs(dataset: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((dataset / "runs").iterdir())]


def metrics(path: Path) -> dict[tuple[str, ...], float]:
    """Return what Prometheus reads: metrics by name and label values, without ``dataset``."""
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    return {
        (
            sample.name,
            *(value for key, value in sample.labels.items() if key != "dataset"),
        ): sample.value
        for sample in samples
    }


def test_every_run_leaves_a_record_and_metrics(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 3)
    (songs / "bad.wav").write_bytes(b"no audio")
    settings = [f"--set={setting}" for setting in SMALL]
    file = tmp_path / "melmill.prom"
    command = ("refresh", songs, tmp_path / "set", "--quiet", "--metrics-file", file)
    assert melmill(*command, *settings).returncode == 3
    values = metrics(file)
    assert values[("melmill_refresh_success",)] == values[("melmill_refresh_committed",)] == 1
    assert values[("melmill_dataset_recordings", "ok")] == 3
    assert values[("melmill_dataset_failures", "unknown_format")] == 1
    write_song(songs / "new.wav", 9)
    assert melmill(*command).returncode == 0
    assert melmill(*command).returncode == 0
    for path in songs.iterdir():
        if path.name != "0.wav":
            path.unlink()
    result = melmill(*command, "--set=refresh.max_removed_ratio=0.2")
    assert result.returncode == 2
    first, second, third, fourth = runs(tmp_path / "set")
    assert [run["status"] for run in (first, second, third, fourth)] == [
        *("committed", "committed", "unchanged", "failed")
    ]
    assert [run.get("version") for run in (first, second, third)] == [0, 1, 1]
    assert second["difference"]["new"] == 1
    assert second["failures"] == {"unknown_format": 1}
    assert second["metrics"]["counters"]["recordings_out.extract"] == 1
    assert second["seconds"] > 0
    assert second["started"] < second["ended"]
    assert "max_removed_ratio" in fourth["message"]
    values = metrics(file)
    assert values[("melmill_refresh_success",)] == 0
    assert ("melmill_dataset_rows",) not in values


def test_a_conflict_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(ConflictError), recording_run(Store(str(tmp_path)), "/songs", None):
        raise ConflictError("another run")
    (run,) = runs(tmp_path)
    assert (run["status"], run["message"]) == ("conflict", "another run")


def test_a_folder_without_a_dataset_gets_no_record(tmp_path: Path) -> None:
    with pytest.raises(ConflictError), recording_run(Store(str(tmp_path)), "/songs", None):
        raise ConflictError("another run")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_or_a_template_is_no_refresh_and_leaves_no_record(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    file = tmp_path / "melmill.prom"
    with (
        pytest.raises(NothingSubmittedError),
        recording_run(Store(str(tmp_path)), "/songs", metrics_writer(file)),
    ):
        raise NothingSubmittedError("wrote the template")
    assert [path.name for path in tmp_path.iterdir()] == ["_delta_log"]


def test_a_programming_error_is_recorded_and_still_crashes(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(KeyError), recording_run(Store(str(tmp_path)), "/songs", None):
        raise KeyError("a bug")
    assert [run["status"] for run in runs(tmp_path)] == ["failed"]


def test_a_missing_folder_is_reported_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "melmill.prom"
    with pytest.raises(ConfigError, match=r"the folder .* does not exist"):
        metrics_writer(file)


def test_metrics_that_cannot_be_written_do_not_cost_the_record(tmp_path: Path) -> None:
    songs, dataset, file = tmp_path / "songs", tmp_path / "set", tmp_path / "m.prom"
    extraction = extract_here(write_songs(songs, 1), dataset, *SMALL)
    file.mkdir()  # something else took the name
    with (
        pytest.raises(ConfigError, match=r"m\.prom: cannot be written: .* has ended: committed"),
        recording_run(Store(str(dataset)), str(songs), metrics_writer(file)) as set_result,
    ):
        set_result(extraction)
    assert [run["status"] for run in runs(dataset)] == ["committed"]


def test_a_name_with_quotes_is_written_as_prometheus_reads_it(tmp_path: Path) -> None:
    write_metrics(Run("/songs", 'a "set"\\here', 1000, 2500), tmp_path / "m.prom")
    assert metrics(tmp_path / "m.prom")[("melmill_refresh_duration_seconds",)] == 1.5
