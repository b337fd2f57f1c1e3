"""The DAG in a real Airflow, installed in an environment of its own: four minutes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from melmill.pipelines.dataset import Dataset
from tests.deploy.stand_ins import StandIn, add_program
from tests.signals import song

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DAG = "melmill_refresh"
AIRFLOW = ["apache-airflow==3.3.2", "apache-airflow-providers-standard==1.21.0"]
#: Beam's operator asks for Google's provider, though nothing here is Google's.
BEAM = ["apache-airflow-providers-apache-beam==6.3.1", "apache-airflow-providers-google==22.8.0"]


class Airflow:
    """An environment with Airflow, its home, and a folder of one DAG."""

    def __init__(self, folder: Path) -> None:
        self.home, self._bin = folder / "home", folder / "venv/bin"
        self._file = self.home / "dags/melmill.py"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        # Without Airflow's constraints, pip would try versions out for very long.
        subprocess.run([self._bin / "pip", "install", "--quiet", "uv"], check=True)
        self.install(AIRFLOW)
        self._file.parent.mkdir(parents=True)
        self("db", "migrate").check_returncode()

    def install(self, requirements: Sequence[str]) -> None:
        python = ["--python", str(self._bin / "python")]
        command = [str(self._bin / "uv"), "pip", "install", "--quiet", *python, *requirements]
        subprocess.run(command, check=True)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        command = [str(self._bin / "airflow"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)

    def import_errors(self) -> Any:
        # Without --local it tells what a scheduler noted, and there is none.
        done = self("dags", "list-import-errors", "--local", "-o", "json")
        said = json.loads(done.stdout.splitlines()[-1])  # the lines before it are warnings
        assert done.returncode == bool(said), done.stderr
        return said

    def settings(self) -> Any:
        """Of the DAG, some that no command of Airflow shows."""
        shown = "[dag.dag_id, dag.catchup, dag.max_active_runs, dag.schedule]"
        read = "import json, runpy, sys; dag = runpy.run_path(sys.argv[1])['dag']"
        show = f"{read}; print(json.dumps({shown}))"
        command = [str(self._bin / "python"), "-c", show, str(self._file)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(said.splitlines()[-1])

    def put(self, **constants: str) -> None:
        """Put the DAG in, with some of its constants set as its head says."""
        text = (ROOT / "deploy/schedule/airflow_dag.py").read_text()
        for name, value in constants.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
            assert count == 1
        assert "timedelta(minutes=5)" in text
        text = text.replace("timedelta(minutes=5)", "timedelta(seconds=1)")
        self._file.write_text(text)

    def run(self) -> bool:
        """Run the DAG once, retries and all; say whether it came to a good end."""
        done = self("dags", "test", DAG)
        (state,) = re.findall(r"DagRun Finished: .* state=(\w+)", done.stdout + done.stderr)
        assert (done.returncode == 0) is (state == "success")
        return done.returncode == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def with_beam(plain: Airflow) -> Airflow:
    """The same one from here on: tests of the plain command come first, and ran without."""
    plain.install(BEAM)
    return plain


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "the songs").mkdir()
    for name in "abc":
        soundfile.write(tmp_path / f"the songs/{name}.wav", song(5, 22050), 22050)
    return tmp_path / "the songs"


def the_command() -> str:
    """A script that runs the real command, from this checkout."""
    return f'PYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m melmill "$@"'


def interpreter(script: str) -> str:
    """The operator asks an interpreter for Beam's version first, and a real one answers."""
    real = f'[ "$1" != -c ] || exec {sys.executable} "$@"'
    return f"{real}\n{script}"


STATUSES = [
    ([0], True),
    ([3], True),
    ([4, 0], True),
    ([2], False),
    ([1, 1, 1, 1], False),
]


def test_the_dag_is_read_as_it_is(plain: Airflow) -> None:
    plain.put()
    assert plain.import_errors() == []
    assert plain.settings() == [DAG, False, 1, "17 3 * * *"]


def test_airflow_would_say_what_it_cannot_read(plain: Airflow) -> None:
    plain.put(OPERATOR="bassh")
    (error,) = plain.import_errors()
    assert "bassh" in error["error"]


@pytest.mark.parametrize(("statuses", "well"), STATUSES)
def test_how_airflow_takes_the_end(
    plain: Airflow, tmp_path: Path, statuses: list[int], well: bool
) -> None:
    melmill = StandIn(tmp_path)
    melmill.end_with(*statuses)
    plain.put(BIN=str(melmill.bin), CATALOGUE="/the songs")
    assert plain.run() is well
    told = ["refresh", "/the songs", "/var/lib/melmill/dataset", "--quiet"]
    assert melmill.runs() == [told] * len(statuses)


def test_airflow_runs_the_real_command(plain: Airflow, songs: Path, tmp_path: Path) -> None:
    add_program(tmp_path / "bin", "melmill", the_command())
    plain.put(BIN=str(tmp_path / "bin"), CATALOGUE=str(songs), DATASET=str(tmp_path / "set"))
    assert plain.run()
    assert sum(Dataset(str(tmp_path / "set")).rows.values()) == 3


@pytest.mark.parametrize(("statuses", "well"), STATUSES)
def test_how_beams_operator_takes_the_end(
    with_beam: Airflow, tmp_path: Path, statuses: list[int], well: bool
) -> None:
    python = StandIn(tmp_path, "python", before=interpreter(""))
    python.end_with(*statuses)
    with_beam.put(OPERATOR="beam", BIN=str(python.bin), CATALOGUE="/the songs", RUNNER="flink")
    assert with_beam.import_errors() == []
    assert with_beam.run() is well
    for told in python.runs():
        wanted = ["refresh", "/the songs", "/var/lib/melmill/dataset", "--quiet", "--runner=flink"]
        assert told[:7] == ["-m", "melmill", *wanted]
    assert len(python.runs()) == len(statuses)


def test_beams_operator_runs_the_real_command(
    with_beam: Airflow, songs: Path, tmp_path: Path
) -> None:
    """With the options that the operator adds by itself."""
    # "-m melmill" comes before "refresh".
    add_program(tmp_path / "bin", "python", interpreter(f"shift 2; {the_command()}"))
    places = {"CATALOGUE": str(songs), "DATASET": str(tmp_path / "set")}
    with_beam.put(OPERATOR="beam", BIN=str(tmp_path / "bin"), **places)
    assert with_beam.run()
    assert sum(Dataset(str(tmp_path / "set")).rows.values()) == 3
