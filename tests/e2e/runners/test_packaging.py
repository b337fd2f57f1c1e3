"""How workers that lack our code get it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.comparing import assert_same_dataset
from tests.e2e.runners.bare import copy_source, make_bare_environment
from tests.e2e.runners.flink import RECIPE, ROOT, Flink
from tests.e2e.songs import Songs

#: Port of the worker pool in the recipe for Kubernetes.
PORT = 50_000


@pytest.fixture(scope="module")
def bare_options(tmp_path_factory: pytest.TempPathFactory, beam_programs: Path) -> tuple[str, ...]:
    """Return options for workers that have melmill's requirements, but not melmill."""
    folder = tmp_path_factory.mktemp("boot")
    python = make_bare_environment(tmp_path_factory.mktemp("bare"))
    # Beam's boot program writes its options into its working directory.
    boot = folder / "boot"
    boot.write_text(f'#!/bin/sh\ncd {folder} && exec {beam_programs / "beam-boot"} "$@"\n')
    boot.chmod(0o755)
    path = f"{python.parent}:{beam_programs}:{os.environ['PATH']}"
    environment = {"command": str(boot), "env": {"PATH": path}}
    return (
        *("--runner-config", str(RECIPE)),
        "--environment_cache_millis=60000",
        f"--environment_config={json.dumps(environment)}",
    )


# The Dataflow test of the same message is quick.
@pytest.mark.slow
def test_workers_without_our_package_are_named_as_the_cause(
    flink: Flink, songs: Songs, tmp_path: Path, bare_options: tuple[str, ...]
) -> None:
    result = flink.melmill(*songs.command(tmp_path / "dataset"), *bare_options, "--quiet")
    assert result.returncode == 2, result.stderr
    assert (
        "melmill: the workers have no melmill; give it to them with --setup_file" in result.stderr
    )


@pytest.mark.slow
def test_a_setup_file_brings_our_package_to_workers(
    flink: Flink,
    songs: Songs,
    dataset: Path,
    tmp_path: Path,
    bare_options: tuple[str, ...],
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    setup = f"--setup_file={copy_source(source)}"
    result = flink.melmill(*songs.command(tmp_path / "dataset"), *bare_options, setup)
    assert result.returncode == 0, result.stderr
    assert_same_dataset(tmp_path / "dataset", dataset)


@pytest.mark.slow
def test_a_pool_of_workers_beside_a_taskmanager_makes_the_dataset(
    flink: Flink, songs: Songs, dataset: Path, tmp_path: Path, beam_programs: Path
) -> None:
    # The image's entry point runs this program if its option is --worker_pool.
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    pool += [f"--service_port={PORT}", f"--container_executable={beam_programs / 'beam-boot'}"]
    command = [str(ROOT / "scripts/flink-cluster"), "run", *pool]
    environment = {**flink.environment, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}
    options = ["--runner-config", str(ROOT / "configs/runners/flink-kubernetes.yaml")]
    # Only one TaskManager, because in a cluster each TaskManager has its own pool.
    options += ["--parallelism=1", "--environment_cache_millis=60000"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as process:
        try:
            result = flink.melmill(*songs.command(tmp_path / "dataset"), *options)
        finally:
            process.terminate()
    assert result.returncode == 0, result.stderr
    assert_same_dataset(tmp_path / "dataset", dataset)
