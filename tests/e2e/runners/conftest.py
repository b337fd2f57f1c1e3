"""Runners that the tests start."""

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
    message = f"{path.name} is not installed; run {command}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    """Yield a Flink cluster that runs until the last test of this folder."""
    result = subprocess.run(
        [ROOT / "scripts/flink-cluster", "where"], capture_output=True, text=True, check=True
    )
    _required(Path(result.stdout.strip()), "scripts/flink-cluster install")
    with flink_cluster(tmp_path_factory.mktemp("flink")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def beam_programs() -> Path:
    """Return the folder of Beam's programs: ``beam-boot`` and ``prism``."""
    result = subprocess.run(
        [ROOT / "scripts/beam-programs", "where"], capture_output=True, text=True, check=True
    )
    folder = Path(result.stdout.strip())
    _required(folder / "prism", "scripts/beam-programs install")
    return folder
