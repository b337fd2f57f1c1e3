"""Check that every script in benchmarks/ runs to its end on a tiny input and prints a result."""

from __future__ import annotations

import os
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
    "judging.py": (("--recordings", "3", "--seconds", "4"), "milliseconds_median"),
    "latency.py": (("SONGS", "--rounds", "1"), "| 20 ms |"),
    "layers.py": (("SONGS", "--number", "1", "--presets", "librosa"), "| `librosa` |"),
    "loaders.py": (("SONGS", "--rounds", "1"), "| TFRecord, Dataset.as_tf |"),
    "memory.py": (("--hours", "0.02", "--tiny", "3"), "| 3 tiny files |"),
    "ordered_loading.py": (
        ("SONGS", "--rounds", "1", "--batch", "4"),
        "| Parquet, Dataset.as_grain in grain |",
    ),
    "planning.py": (("--sizes", "5", "--workers", "1"), "| 5 recordings |"),
    "presets.py": (("SONGS", "--rounds", "1", "--seconds", "3"), "| MP3, one pass: 5 presets |"),
    "refresh.py": (("--recordings", "30", "--real", "30", "--workers", "1"), "| refresh, 10.0% |"),
    "scaling.py": (("SONGS", "--rounds", "1", "--copies", "4"), "| work alone |"),
    "short_duplicates.py": (
        ("SONGS", "--most", "3", "--pairs", "1", "--clips", "200"),
        "| 200 |",
    ),
    "stragglers.py": (("--hours", "1", "--tiny", "3"), "| 3 tiny files |"),
}


#: Stands for essentia, which is AGPL and is not installed for tests: it finds nothing.
ESSENTIA = {
    "__init__.py": "class log: pass\n",
    "standard.py": """
class FrameGenerator:
    def __new__(cls, samples, size, hop, startFromZero):
        return iter([samples[:size]])
class Detector:
    def parameterNames(self):
        return ["sampleRate"]
    def configure(self, sampleRate):
        assert sampleRate > 0
    def __call__(self, samples):
        return [], []
def __getattr__(name):
    return Detector
class FalseStereoDetector(Detector):
    def __call__(self, samples):
        return 0, 0.5
class StartStopCut(Detector):
    def __call__(self, samples):
        return 0, 1
""",
}


def run(name: str, *arguments: object, **environment: object) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    variables = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
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


def test_defects_are_compared_with_essentia_where_it_is(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "essentia").mkdir()
    for name, text in ESSENTIA.items():
        (tmp_path / "essentia" / name).write_text(text)
    arguments = (songs, "--each", "1", "--essentia")
    table = run("defects.py", *arguments, PYTHONPATH=f"{tmp_path}:{BENCHMARKS.parent}")
    assert "| essentia `GapsDetector` | 0.000 | 0.000 | 0.0 | 0 of 1 |" in table
    assert "| essentia `StartStopCut` | 1.000 | 0.250 | 300.0 | 1 of 1 |" in table
    assert "| essentia `ClickDetector` | area 0.500 |" in table


def test_where_essentia_is_missing_the_head_of_the_script_says_how_to_install_it(
    songs: Path,
) -> None:
    with pytest.raises(AssertionError, match="the head of this script says how to install it"):
        run("defects.py", songs, "--essentia")
    assert "essentia==" in (BENCHMARKS / "defects.py").read_text()
