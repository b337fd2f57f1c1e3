"""On a real Flink cluster: the same bytes as on this machine alone, whatever is killed."""

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
from tests.e2e.runners.flink import RECIPE, RUN_SECONDS, Flink, kill_hard, said_json
from tests.e2e.songs import Songs
from tests.pipeline_runs import extract_here, melmill
from tests.refresh.catalogues import SMALL, assert_as_fresh, write_song, write_songs
from tests.signals import noise, write_audio

ON_FLINK = ("--runner-config", str(RECIPE))
#: Workers stay from stage to stage, which saves two seconds for each; one that dies stays, too.
QUICKLY = (*ON_FLINK, "--environment_cache_millis=60000")


def test_flink_makes_the_same_bytes(
    flink: Flink, songs: Songs, dataset: Path, tmp_path: Path
) -> None:
    done = flink.melmill(*songs.command(tmp_path / "dataset"), *QUICKLY, "--json")
    said = said_json(done)
    assert_same_dataset(tmp_path / "dataset", dataset)
    # What is counted has the same names, and without accidents the same numbers.
    assert "shards finished" in done.stderr
    local = json.loads((dataset.parent / "said.json").read_text())["metrics"]
    assert said["metrics"]["counters"] == local["counters"]
    spread = {name: one["count"] for name, one in said["metrics"]["distributions"].items()}
    assert spread == {name: one["count"] for name, one in local["distributions"].items()}


def test_both_taskmanagers_make_shards(flink: Flink) -> None:
    # Of the run before: without a reshuffle and a parallelism one of them does everything.
    (job,) = (one["jid"] for one in flink.ask("jobs/overview")["jobs"])
    (stage,) = (
        vertex["id"]
        for vertex in flink.ask(f"jobs/{job}")["vertices"]
        # Not where recordings are written once more, within WriteRecounted.
        if "]WriteShards/MakeShards)" in vertex["name"]
    )
    tasks = flink.ask(f"jobs/{job}/vertices/{stage}")["subtasks"]
    assert len({task["taskmanager-id"] for task in tasks}) == 2
    assert all(task["metrics"]["read-records"] > 0 for task in tasks)


@pytest.mark.slow
def test_plan_and_export_run_there_too(
    flink: Flink, songs: Songs, dataset: Path, rows: Rows, tmp_path: Path
) -> None:
    planned = said_json(
        flink.melmill("plan", str(songs.table), str(tmp_path / "plan"), *QUICKLY, "--json")
    )
    assert planned["recordings"] == {"planned": 12}
    view = str(tmp_path / "view")
    made = flink.melmill("export", str(dataset), view, "--format", "numpy", *QUICKLY, "--json")
    assert sum(said_json(made)["rows"].values()) == len(rows)


def test_a_refresh_runs_there_and_a_bad_recording_is_a_failure_there_too(
    flink: Flink, tmp_path: Path
) -> None:
    songs, dataset = write_songs(tmp_path / "songs"), tmp_path / "dataset"
    extract_here(songs, dataset, *SMALL, "output.min_shards=2")
    (songs / "bad.wav").write_bytes(b"RIFF of nothing")
    write_song(songs / "new.wav", 60)
    write_song(songs / "1.wav", 61)
    (songs / "2.wav").unlink()
    arguments = ("refresh", str(songs), str(dataset), "--json")
    said = said_json(flink.melmill(*arguments, *QUICKLY), allowed=[3])
    done = [said["difference"][kind] for kind in ("new", "changed", "removed", "unchanged")]
    assert done == [2, 1, 1, 4]
    assert said["recordings"] == {"ok": 6, "failed": 1}
    (cause,) = said["failures"]
    assert said["metrics"]["counters"][f"failures_{cause}"] == 1
    assert said["metrics"]["counters"]["recordings_out.extract"] == 2
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


# Killed in mid-run


@pytest.fixture(scope="module")
def long_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough to do that something can be killed meanwhile."""
    folder = tmp_path_factory.mktemp("long")
    for number in range(16):
        write_audio(folder / f"{number}.wav", noise(60, 44_100, number), 44_100)
    return folder


LONG = ("--set", "chunk.hop_seconds=0.5", "--set", "output.min_shards=60")


@pytest.fixture(scope="module")
def long_dataset(long_songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made on this machine."""
    folder = tmp_path_factory.mktemp("local") / "dataset"
    done = melmill("extract", long_songs, folder, *LONG)
    assert done.returncode == 0, done.stderr
    return folder


def kill_taskmanager(flink: Flink) -> None:
    kill_hard(flink.pid("taskmanager-2"))


def kill_python_worker(flink: Flink) -> None:
    kill_hard(flink.python_workers()[0].pid)


# The harder of the two by default: with a TaskManager its Python workers go.
@pytest.mark.parametrize(
    "kill", [pytest.param(kill_python_worker, marks=pytest.mark.slow), kill_taskmanager]
)
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
            said, _ = run.communicate(timeout=RUN_SECONDS)
        except BaseException:
            run.kill()  # or else it is waited for, without end
            raise
    assert run.returncode == 0, said + flink.logs()
    assert_same_dataset(folder, long_dataset)
    whole = melmill("validate", folder)
    assert whole.returncode == 0, whole.stdout
    if kill is kill_taskmanager:
        (flink.folder / "taskmanager-2.pid").unlink()
        assert flink.script("add-taskmanager").returncode == 0


# What is wrong with a cluster


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
def test_no_such_cluster_is_said_within_seconds(
    flink: Flink, songs: Songs, tmp_path: Path, options: list[str], message: str
) -> None:
    started = time.monotonic()
    done = flink.melmill("extract", str(songs.table), str(tmp_path / "dataset"), *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"melmill: {message}")
    assert time.monotonic() - started < 20
    assert not (tmp_path / "dataset").exists()


def test_a_job_server_of_another_flink_is_refused(
    flink: Flink, songs: Songs, tmp_path: Path
) -> None:
    jar = tmp_path / "job-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(".flink-runtime.version.properties", "#\nproject.version=1.17.2\n")
    done = flink.melmill(
        "extract",
        str(songs.table),
        str(tmp_path / "dataset"),
        "--runner=flink",
        "--flink_master=localhost:8081",
        f"--flink_job_server_jar={jar}",
    )
    assert done.returncode == 2
    assert "built with Flink 1.17.2, but the cluster at localhost:8081 is Flink 1.19.0" in (
        done.stderr
    )
