"""How our code gets to workers that do not have it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.comparing import assert_same_dataset
from tests.e2e.runners.bare import copy_source, make_bare_environment
from tests.e2e.runners.flink import RECIPE, Flink
from tests.e2e.songs import Songs


@pytest.fixture(scope="module")
def bare_options(tmp_path_factory: pytest.TempPathFactory, beam_programs: Path) -> tuple[str, ...]:
    """Options for workers that have what melmill needs, but not melmill."""
    python = make_bare_environment(tmp_path_factory.mktemp("bare"))
    path = f"{python.parent}:{beam_programs}:{os.environ['PATH']}"
    environment = {"command": str(beam_programs / "beam-boot"), "env": {"PATH": path}}
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
