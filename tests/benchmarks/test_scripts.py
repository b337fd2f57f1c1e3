"""Check that every script in benchmarks/ runs to its end on a tiny input and prints a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.signals import song, write_audio

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Modules that the scripts import.
MODULES = {"measure.py"}

#: Name of a script -> its arguments (SONGS and OUTPUT stand for folders), and text that it prints.
QUICK = {
    "baseline_decode.py": (("SONGS",), "\n"),
    "defects.py": (("SONGS", "--each", "2"), "| clipping |"),
    "scale.py": (("--alone", "--sizes", "300"), "| 300 |"),
    "stages.py": (("SONGS", "--rounds", "1", "--files", "3"), "| span: decoder process |"),
}
LONG = {
    "baseline_beam.py": (("SONGS", "OUTPUT", "--workers", "1"), ""),
    "baseline_pool.py": (("SONGS", "OUTPUT", "--workers", "1"), "\n"),
    "duplicates.py": (
        ("SONGS", "--seconds", "10", "--pairs", "1", "--fingerprints", "200"),
        "| 200 |",
    ),
    "end_to_end.py": (("SONGS", "--rounds", "1", "--workers", "1"), "| melmill |"),
    "latency.py": (("SONGS", "--rounds", "1"), "| 20 ms |"),
    "loaders.py": (("SONGS", "--rounds", "1"), "| TFRecord, Dataset.as_tf |"),
    "memory.py": (("--hours", "0.02", "--tiny", "3"), "| 3 tiny files |"),
    "planning.py": (("--sizes", "5", "--workers", "1"), "| 5 recordings |"),
    "presets.py": (("SONGS", "--rounds", "1", "--seconds", "3"), "| MP3, one pass: 5 presets |"),
    "refresh.py": (("--recordings", "30", "--real", "30", "--workers", "1"), "| refresh, 10.0% |"),
    "scaling.py": (("SONGS", "--rounds", "1", "--copies", "4"), "| work alone |"),
    "stragglers.py": (("--hours", "1", "--tiny", "3"), "| 3 tiny files |"),
}


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr[-4000:]
    return completed.stdout


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of songs in each format, made by the script that the benchmarks use."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "package").mkdir()
    for number in range(6):
        sound = song(14.0 + number, 44_100, number, 2)
        write_audio(folder / "package" / f"{number}.ogg", sound, 44_100)
    assert run("make_songs.py", folder / "package", folder / "songs") == "6 songs\n"
    return folder / "songs"


def test_there_is_a_case_for_every_script() -> None:
    names = {path.name for path in BENCHMARKS.glob("*.py")}
    assert names == {"make_songs.py", *QUICK, *LONG, *MODULES}


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        *(pytest.param(name, *case, id=name) for name, case in QUICK.items()),
        *(
            pytest.param(name, *case, id=name, marks=pytest.mark.slow)
            for name, case in LONG.items()
        ),
    ],
)
def test_a_script_runs(
    songs: Path, tmp_path: Path, name: str, arguments: tuple[str, ...], word: str
) -> None:
    folders = {"SONGS": songs, "OUTPUT": tmp_path / "output"}
    assert word in run(name, *(folders.get(argument, argument) for argument in arguments))
