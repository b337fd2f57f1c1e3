"""A real Flink cluster makes the same bytes as this machine alone, whatever process is killed."""

from __future__ import annotations

import json
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.comparing import assert_same_dataset
from tests.e2e.rows import Rows
from tests.e2e.runners.flink import RECIPE, RUN_SECONDS, Flink, kill_hard, printed_json
from tests.e2e.songs import Songs
from tests.pipeline_runs import extract_here, melmill
from tests.refresh.catalogues import SMALL, assert_as_fresh, write_song, write_songs
from tests.signals import noise, write_audio

ON_FLINK = ("--runner-config", str(RECIPE))
#: Workers stay from stage to stage, which saves two seconds per stage. Dead workers stay, too, so
#: tests that kill processes do not use this option.
KEEP_WORKERS = (*ON_FLINK, "--environment_cache_millis=60000")


def test_flink_makes_the_same_bytes(
    flink: Flink, songs: Songs, dataset: Path, tmp_path: Path
) -> None:
    result = flink.melmill(*songs.command(tmp_path / "dataset"), *KEEP_WORKERS, "--json")
    summary = printed_json(result)
    assert_same_dataset(tmp_path / "dataset", dataset)
    # The counters have the same names and, without faults, the same values.
    assert "shards finished" in result.stderr
    local = json.loads((dataset.parent / "summary.json").read_text())["metrics"]
    assert summary["metrics"]["counters"] == local["counters"]
    counts = {name: item["count"] for name, item in summary["metrics"]["distributions"].items()}
    assert counts == {name: item["count"] for name, item in local["distributions"].items()}


def test_both_taskmanagers_make_shards(flink: Flink) -> None:
    # This looks at the job of the test before. Without a reshuffle and parallelism, a single
    # TaskManager makes all shards.
    (job,) = (job_summary["jid"] for job_summary in flink.ask("jobs/overview")["jobs"])
    (stage,) = (
        vertex["id"]
        for vertex in flink.ask(f"jobs/{job}")["vertices"]
        # Not the stage within WriteRecounted, where recordings are written again.
        if "]WriteShards/MakeShards)" in vertex["name"]
    )
    tasks = flink.ask(f"jobs/{job}/vertices/{stage}")["subtasks"]
    assert len({task["taskmanager-id"] for task in tasks}) == 2
    assert all(task["metrics"]["read-records"] > 0 for task in tasks)


@pytest.mark.slow
def test_plan_and_export_run_on_flink_too(
    flink: Flink, songs: Songs, dataset: Path, rows: Rows, tmp_path: Path
) -> None:
    planned = printed_json(
        flink.melmill("plan", str(songs.table), str(tmp_path / "plan"), *KEEP_WORKERS, "--json")
    )
    assert planned["recordings"] == {"planned": 12}
    view = str(tmp_path / "view")
    exported = flink.melmill(
        "export", str(dataset), view, "--format", "numpy", *KEEP_WORKERS, "--json"
    )
    assert sum(printed_json(exported)["rows"].values()) == len(rows)


@pytest.mark.slow
def test_a_refresh_runs_on_flink_and_a_bad_recording_is_a_failure(
    flink: Flink, tmp_path: Path
) -> None:
    songs, dataset = write_songs(tmp_path / "songs"), tmp_path / "dataset"
    extract_here(songs, dataset, *SMALL, "output.min_shards=2")
    (songs / "bad.wav").write_bytes(b"RIFF of nothing")
    write_song(songs / "new.wav", 60)
    write_song(songs / "1.wav", 61)
    (songs / "2.wav").unlink()
    arguments = ("refresh", str(songs), str(dataset), "--json")
    summary = printed_json(flink.melmill(*arguments, *KEEP_WORKERS), allowed=[3])
    difference = [
        summary["difference"][kind] for kind in ("new", "changed", "removed", "unchanged")
    ]
    assert difference == [2, 1, 1, 4]
    assert summary["recordings"] == {"ok": 6, "failed": 1}
    (cause,) = summary["failures"]
    assert summary["metrics"]["counters"][f"failures_{cause}"] == 1
    assert summary["metrics"]["counters"]["recordings_out.extract"] == 2
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


# Processes killed during a run


@pytest.fixture(scope="module")
def long_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write so many long recordings that a process can be killed during their extraction."""
    folder = tmp_path_factory.mktemp("long")
    for number in range(16):
        write_audio(folder / f"{number}.wav", noise(60, 44_100, number), 44_100)
    return folder


LONG = ("--set", "chunk.hop_seconds=0.5", "--set", "output.min_shards=60")


@pytest.fixture(scope="module")
def long_dataset(long_songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset that was made on this machine."""
    folder = tmp_path_factory.mktemp("local") / "dataset"
    result = melmill("extract", long_songs, folder, *LONG)
    assert result.returncode == 0, result.stderr
    return folder


def kill_taskmanager(flink: Flink) -> None:
    kill_hard(flink.pid("taskmanager-2"))


def kill_python_worker(flink: Flink) -> None:
    kill_hard(flink.python_workers()[0].pid)


# With a TaskManager, its Python workers end, too.
@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_python_worker, kill_taskmanager])
def test_the_job_finishes_with_every_row_once(
    flink: Flink,
    kill: Callable[[Flink], Any],
    long_songs: Path,
    long_dataset: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "dataset"
    command = flink.command("extract", str(long_songs), str(folder), *LONG, *ON_FLINK)
    with subprocess.Popen(
        command, env=flink.environment, stdout=-1, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            while len(list(folder.glob("staging/*/shards/*.json"))) < 5:
                assert run.poll() is None, run.communicate()
                time.sleep(0.01)
            kill(flink)
            finished = len(list(folder.glob("staging/*/shards/*.json")))
            assert finished < 50, "too late to kill anything"
            output, _ = run.communicate(timeout=RUN_SECONDS)
        except BaseException:
            run.kill()  # otherwise Popen waits for the run without end
            raise
    assert run.returncode == 0, output + flink.logs()
    assert_same_dataset(folder, long_dataset)
    validation = melmill("validate", folder)
    assert validation.returncode == 0, validation.stdout
    if kill is kill_taskmanager:
        (flink.folder / "taskmanager-2.pid").unlink()
        assert flink.script("add-taskmanager").returncode == 0


# Faults of a cluster


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--runner=flink", "--job_endpoint=localhost:9"],
            "--job_endpoint localhost:9: no job server answers there",
        ),
        (
            ["--runner=flink", "--flink_master=localhost:9"],
            "--flink_master localhost:9: no Flink answers there",
        ),
        (["--runner=flink"], "--runner flink: no cluster is given"),
        (["--runner=flink", "--job_endpoint=8099"], "--job_endpoint 8099: must be HOST:PORT"),
        (
            ["--runner=flink", "--flink_master=localhost:8099"],
            "--flink_master localhost:8099: no Flink answers there",
        ),
        (
            ["--runner=flink", "--flink_master=localhost:8081", "--flink_version=2.0"],
            "--flink_version 2.0: the cluster at localhost:8081 is Flink 1.19.0; remove the "
            "option, or set it to 1.19",
        ),
    ],
)
def test_a_missing_cluster_is_reported_within_seconds(
    flink: Flink, songs: Songs, tmp_path: Path, options: list[str], message: str
) -> None:
    started = time.monotonic()
    result = flink.melmill("extract", str(songs.table), str(tmp_path / "dataset"), *options)
    assert result.returncode == 2
    assert result.stderr.startswith(f"melmill: {message}")
    assert time.monotonic() - started < 60  # not minutes of attempts, on a busy machine too
    assert not (tmp_path / "dataset").exists()


def test_a_job_server_of_another_flink_is_refused(
    flink: Flink, songs: Songs, tmp_path: Path
) -> None:
    jar = tmp_path / "job-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(".flink-runtime.version.properties", "#\nproject.version=1.17.2\n")
    result = flink.melmill(
        "extract",
        str(songs.table),
        str(tmp_path / "dataset"),
        "--runner=flink",
        "--flink_master=localhost:8081",
        f"--flink_job_server_jar={jar}",
    )
    assert result.returncode == 2
    assert "built with Flink 1.17.2, but the cluster at localhost:8081 is Flink 1.19.0" in (
        result.stderr
    )
