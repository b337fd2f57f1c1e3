"""Runners that are started for the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.runners.flink import ROOT, Flink, flink_cluster


def _required(path: Path, command: str) -> Path:
    if path.exists():
        return path
    message = f"no {path.name}: run {command}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    """A Flink cluster, until the last test of this folder."""
    where = subprocess.run(
        [ROOT / "scripts/flink-cluster", "where"], capture_output=True, text=True, check=True
    )
    _required(Path(where.stdout.strip()), "scripts/flink-cluster install")
    with flink_cluster(tmp_path_factory.mktemp("flink")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def beam_programs() -> Path:
    """Folder of Beam's programs: ``beam-boot`` and ``prism``."""
    where = subprocess.run(
        [ROOT / "scripts/beam-programs", "where"], capture_output=True, text=True, check=True
    )
    folder = Path(where.stdout.strip())
    _required(folder / "prism", "scripts/beam-programs install")
    return folder
