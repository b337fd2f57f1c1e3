"""How our code gets to workers that do not have it."""

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

#: Of the recipe for Kubernetes.
PORT = 50_000


@pytest.fixture(scope="module")
def bare_options(tmp_path_factory: pytest.TempPathFactory, beam_programs: Path) -> tuple[str, ...]:
    """Options for workers that have what melmill needs, but not melmill."""
    folder = tmp_path_factory.mktemp("boot")
    python = make_bare_environment(tmp_path_factory.mktemp("bare"))
    # Beam's boot program leaves its options in the folder that it is started in.
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


def test_workers_without_our_package_are_named_as_the_cause(
    flink: Flink, songs: Songs, tmp_path: Path, bare_options: tuple[str, ...]
) -> None:
    done = flink.melmill(*songs.command(tmp_path / "dataset"), *bare_options, "--quiet")
    assert done.returncode == 2, done.stderr
    assert "melmill: the workers have no melmill; give it to them with --setup_file" in done.stderr


def test_a_setup_file_brings_it_to_them(
    flink: Flink,
    songs: Songs,
    dataset: Path,
    tmp_path: Path,
    bare_options: tuple[str, ...],
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    setup = f"--setup_file={copy_source(source)}"
    done = flink.melmill(*songs.command(tmp_path / "dataset"), *bare_options, setup)
    assert done.returncode == 0, done.stderr
    assert_same_dataset(tmp_path / "dataset", dataset)


def test_a_pool_of_workers_as_in_an_image_beside_a_taskmanager(
    flink: Flink, songs: Songs, dataset: Path, tmp_path: Path, beam_programs: Path
) -> None:
    # What the image's entry point runs when it is told --worker_pool.
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    pool += [f"--service_port={PORT}", f"--container_executable={beam_programs / 'beam-boot'}"]
    inside = [str(ROOT / "scripts/flink-cluster"), "run", *pool]
    environment = {**flink.environment, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}
    options = ["--runner-config", str(ROOT / "configs/runners/flink-kubernetes.yaml")]
    # One TaskManager: in a cluster each has a pool of its own.
    options += ["--parallelism=1", "--environment_cache_millis=60000"]
    with subprocess.Popen(
        inside, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as process:
        try:
            done = flink.melmill(*songs.command(tmp_path / "dataset"), *options)
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    assert_same_dataset(tmp_path / "dataset", dataset)
