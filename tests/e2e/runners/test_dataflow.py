"""Dataflow's real client submits jobs, and they run as they would in the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from melmill.pipelines.dataset import Dataset
from melmill.pipelines.run.options import pipeline_options
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.snapshot.delta import require_snapshot
from tests.e2e.object_stores.servers import Place
from tests.e2e.runners.bare import copy_source
from tests.e2e.runners.dataflow_service import DONE, FAILED, Service, dataflow_service
from tests.e2e.runners.flink import ROOT, printed_json
from tests.e2e.songs import SETTINGS, Songs


@pytest.fixture(scope="module")
def service(
    endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with dataflow_service(endpoints["gcs"], tmp_path_factory.mktemp("dataflow")) as service:
        yield service


@pytest.fixture(scope="module")
def setup_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("source"))


def assert_same_rows(place: Place, local_dataset: Path, fetched: Path) -> None:
    """Check that the rows equal those of the local dataset, except the recordings' paths."""
    place.filesystem().get(f"{place.bucket}/dataset", str(fetched), recursive=True)
    actual, expected = (
        pl.read_delta(str(folder)).with_columns(pl.col("uri").str.split("/").list.last())
        for folder in (fetched, local_dataset)
    )
    order = ["uri", "chunk_index"]
    columns = [name for name in expected.columns if name != "recording_id"]
    assert actual.select(columns).sort(order).equals(expected.select(columns).sort(order))
    assert not (fetched / "staging").exists()


def run(
    service: Service,
    place: Place,
    *arguments: str,
    program: tuple[str, ...] = ("-m", "melmill"),
) -> subprocess.CompletedProcess[str]:
    """Run the real command with the substitute service and a server of Cloud Storage's API."""
    service_variables = {**place.environment, **service.environment}
    environment = {**os.environ, **service_variables}
    del environment["NO_GCE_CHECK"]
    command = [sys.executable, *program, *arguments, *service.options]
    command += [f"--temp_location={place.root}/tmp"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def upload(songs: Songs, place: Place) -> str:
    store = place.filesystem()
    store.put(str(songs.table.parent), f"{place.bucket}/catalogue", recursive=True)
    return f"{place.root}/catalogue/{songs.table.name}"


def test_the_staged_package_makes_the_dataset(
    service: Service, gcs: Place, songs: Songs, dataset: Path, setup_file: Path, tmp_path: Path
) -> None:
    catalogue = upload(songs, gcs)
    arguments = songs.command(f"{gcs.root}/dataset")
    arguments[1] = catalogue
    result = run(service, gcs, *arguments, f"--setup_file={setup_file}", "--json")
    summary = printed_json(result)
    job = list(service.jobs.values())[-1]
    assert job.state == DONE
    assert any("workflow.tar.gz" in message["messageText"] for message in job.messages)
    assert summary["metrics"]["counters"]["rows_written"] == summary["rows"]
    assert_same_rows(gcs, dataset, tmp_path / "fetched")


def test_the_job_asks_for_workers_that_suit_the_work(service: Service) -> None:
    job = list(service.jobs.values())[-1]
    # Each core has one Python process, which makes two shards at a time.
    assert job.options["number_of_worker_harness_threads"] == 2


@pytest.mark.slow
def test_without_the_staged_package_the_workers_are_named_as_the_cause(
    service: Service, gcs: Place, songs: Songs
) -> None:
    arguments = songs.command(f"{gcs.root}/dataset")
    arguments[1] = upload(songs, gcs)
    result = run(service, gcs, *arguments, "--quiet")
    assert list(service.jobs.values())[-1].state == FAILED
    assert result.returncode == 2
    assert (
        "melmill: the workers have no melmill; give it to them with --setup_file" in result.stderr
    )


def test_a_dry_run_checks_the_options_and_submits_nothing(
    service: Service, gcs: Place, songs: Songs
) -> None:
    jobs_before = len(service.jobs)
    arguments = songs.command(f"{gcs.root}/dataset")
    arguments[1] = upload(songs, gcs)
    result = run(service, gcs, *arguments, "--dry_run=True")
    assert result.returncode == 0, result.stderr
    assert "nothing was submitted" in result.stdout
    assert len(service.jobs) == jobs_before
    assert gcs.store("dataset").top_names() == set()


def test_a_templates_job_commits_by_itself(
    service: Service, gcs: Place, songs: Songs, dataset: Path, setup_file: Path, tmp_path: Path
) -> None:
    extract_by_template(service, gcs, songs, setup_file)
    assert_same_rows(gcs, dataset, tmp_path / "fetched")


# An extraction by a template and a refresh on an object store (test_refresh.py) have quick tests.
@pytest.mark.slow
def test_a_templates_job_refreshes_by_itself(
    service: Service, gcs: Place, songs: Songs, setup_file: Path
) -> None:
    arguments = extract_by_template(service, gcs, songs, setup_file)
    output, table = f"{gcs.root}/dataset", f"{gcs.root}/catalogue/{songs.table.name}"
    # The catalogue now lacks a song, and a song has another genre.
    lines = songs.table.read_text(encoding="utf-8").splitlines()
    lines[0] = lines[0].replace("rock", "pop")
    name = table.removeprefix(f"{gcs.root}/")
    gcs.filesystem().pipe_file(f"{gcs.bucket}/{name}", "\n".join(lines[:-1]).encode())
    run_template(service, gcs, *arguments, "--command=refresh")
    current = require_snapshot(gcs.store("dataset"))
    assert (current.version, current.operation) == (1, "refresh")
    rows = Dataset(output, gcs.options).as_arrow().to_table(columns=["uri", "genre"])
    assert len(set(rows["uri"].to_pylist())) == 11
    assert "pop" in rows["genre"].to_pylist()


def extract_by_template(
    service: Service, gcs: Place, songs: Songs, setup_file: Path
) -> tuple[str, ...]:
    """Extract the songs into ``dataset``; return the arguments that a refresh has, too."""
    output, table = f"{gcs.root}/dataset", upload(songs, gcs)
    arguments = (f"--catalogue={table}", f"--output={output}", f"--setup_file={setup_file}")
    run_template(service, gcs, *arguments, f"--settings={';'.join(SETTINGS[1:6:2])}")
    return arguments


def run_template(service: Service, gcs: Place, *arguments: str) -> None:
    """Write a template, and let the service run a job of it, without a launcher that waits."""
    template = f"{gcs.root}/templates/job.json"
    program = (str(ROOT / "deploy/dataflow/main.py"),)
    result = run(service, gcs, *arguments, f"--template_location={template}", program=program)
    assert result.returncode == 0, result.stderr
    assert f"wrote the template {template}" in result.stdout
    job = service.create(json.loads(gcs.filesystem().cat_file(template)))
    deadline = time.monotonic() + 120
    while job.state not in (DONE, FAILED) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert job.state == DONE, job.messages


NEEDED = {
    "--project": "project",
    "--region": "europe-west1",
    "--temp_location": "gs://bucket/tmp",
}


def without(missing: str) -> list[str]:
    """Return the options that a job needs, without the option `missing`."""
    return [f"{name}={value}" for name, value in NEEDED.items() if name != missing]


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_option_of_dataflow_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"--runner dataflow: {missing}"):
        pipeline_options("dataflow", beam_options=without(missing))


def test_the_command_names_a_missing_option_at_once(songs: Songs, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "melmill", *songs.command(tmp_path / "dataset")]
    options = ["--runner=dataflow", *without("--project")]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("melmill: --runner dataflow: --project")


def test_missing_credentials_are_reported_within_seconds(songs: Songs, tmp_path: Path) -> None:
    no_account = {
        "HOME": str(tmp_path),
        "CLOUDSDK_CONFIG": str(tmp_path),
        # No server answers there, as on a machine that is not Google's.
        "GCE_METADATA_HOST": "127.0.0.1:9",
        "GCE_METADATA_IP": "127.0.0.1:9",
    }
    environment = {**os.environ, **no_account}
    environment.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
    command = [sys.executable, "-m", "melmill", *songs.command(tmp_path / "dataset")]
    command += ["--runner=dataflow", "--project=project", "--region=europe-west1"]
    started = time.monotonic()
    result = subprocess.run(
        [*command, "--temp_location=gs://bucket/tmp"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "no credentials for Google Cloud were found; run: gcloud auth" in result.stderr
    assert time.monotonic() - started < 60  # not minutes of attempts, on a busy machine too
