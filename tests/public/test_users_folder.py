"""Tests with a user's own files that have the most common names: they do no harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.signals import song, write_audio

BROKEN = "raise RuntimeError('this is the user\\'s own module')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "transforms.py").write_text(BROKEN)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text(BROKEN)
    (tmp_path / "melmill.yaml").write_text("chunk: {seconds: 1}\n")
    write_audio(tmp_path / "song.wav", song(2.5, 22_050), 22_050)
    return tmp_path


COMMAND = [Path(sys.executable).with_name("melmill"), "extract", "song.wav", "dataset"]
PROGRAM = "import melmill; melmill.extract('song.wav', 'dataset', recipe='melmill.yaml', workers=2)"


@pytest.mark.parametrize(
    "command",
    [
        [*COMMAND, "--recipe=melmill.yaml", "--workers=2", "--quiet"],
        [sys.executable, "-c", PROGRAM],
        [sys.executable, "-m", "melmill", *COMMAND[1:], "--recipe=melmill.yaml", "--quiet"],
    ],
    ids=["command", "program", "module"],
)
def test_modules_in_the_current_folder_do_no_harm(command: list[str], folder: Path) -> None:
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert "RuntimeError" not in completed.stderr


def test_workers_do_not_look_into_the_current_folder(folder: Path) -> None:
    """A file that shadows a library may only affect the program that starts the workers."""
    (folder / "soxr.py").write_text(BROKEN)
    completed = subprocess.run(
        [*COMMAND, "--set", "audio.sample_rate_hz=16000", "--workers=2", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
