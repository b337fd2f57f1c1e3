"""Tests of the DAG in a real Airflow, installed in its own environment; they take four minutes."""

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
#: Beam's operator needs Google's provider, although the tests use nothing of Google's.
BEAM = ["apache-airflow-providers-apache-beam==6.3.1", "apache-airflow-providers-google==22.8.0"]


class Airflow:
    """An environment with Airflow, its home folder, and a folder with one DAG."""

    def __init__(self, folder: Path) -> None:
        self.home, self._bin = folder / "home", folder / "venv/bin"
        self._file = self.home / "dags/melmill.py"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        # Without Airflow's constraints, pip would try versions for a very long time; uv is fast.
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
        # Without --local, Airflow shows what a scheduler recorded, but no scheduler runs here.
        completed = self("dags", "list-import-errors", "--local", "-o", "json")
        # The lines before the last line are warnings.
        errors = json.loads(completed.stdout.splitlines()[-1])
        assert completed.returncode == bool(errors), completed.stderr
        return errors

    def settings(self) -> Any:
        """Return settings of the DAG that no command of Airflow shows."""
        expression = "[dag.dag_id, dag.catchup, dag.max_active_runs, dag.schedule]"
        read = "import json, runpy, sys; dag = runpy.run_path(sys.argv[1])['dag']"
        show = f"{read}; print(json.dumps({expression}))"
        command = [str(self._bin / "python"), "-c", show, str(self._file)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(output.splitlines()[-1])

    def put(self, **constants: str) -> None:
        """Install the DAG, with some of the constants at its top changed."""
        text = (ROOT / "deploy/schedule/airflow_dag.py").read_text()
        for name, value in constants.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
            assert count == 1
        assert "timedelta(minutes=5)" in text
        text = text.replace("timedelta(minutes=5)", "timedelta(seconds=1)")
        self._file.write_text(text)

    def run(self) -> bool:
        """Run the DAG once with its retries, and return whether it succeeded."""
        completed = self("dags", "test", DAG)
        (state,) = re.findall(
            r"DagRun Finished: .* state=(\w+)", completed.stdout + completed.stderr
        )
        assert (completed.returncode == 0) is (state == "success")
        return completed.returncode == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def with_beam(plain: Airflow) -> Airflow:
    """Return the same Airflow, now with Beam's operator.

    The tests of the plain command come first, so they run without it.
    """
    plain.install(BEAM)
    return plain


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "the songs").mkdir()
    for name in "abc":
        soundfile.write(tmp_path / f"the songs/{name}.wav", song(5, 22050), 22050)
    return tmp_path / "the songs"


def the_command() -> str:
    """Return a script that runs the real command from this checkout."""
    return f'PYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m melmill "$@"'


def interpreter(script: str) -> str:
    """Return a script that answers Beam's operator, which first asks Python for Beam's version."""
    real_answer = f'[ "$1" != -c ] || exec {sys.executable} "$@"'
    return f"{real_answer}\n{script}"


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


def test_airflow_reports_a_dag_that_it_cannot_read(plain: Airflow) -> None:
    plain.put(OPERATOR="bassh")
    (error,) = plain.import_errors()
    assert "bassh" in error["error"]


@pytest.mark.parametrize(("statuses", "succeeds"), STATUSES)
def test_how_airflow_treats_each_exit_status(
    plain: Airflow, tmp_path: Path, statuses: list[int], succeeds: bool
) -> None:
    melmill = StandIn(tmp_path)
    melmill.end_with(*statuses)
    plain.put(BIN=str(melmill.bin), CATALOGUE="/the songs")
    assert plain.run() is succeeds
    arguments = ["refresh", "/the songs", "/var/lib/melmill/dataset", "--quiet"]
    assert melmill.runs() == [arguments] * len(statuses)


def test_airflow_runs_the_real_command(plain: Airflow, songs: Path, tmp_path: Path) -> None:
    add_program(tmp_path / "bin", "melmill", the_command())
    plain.put(BIN=str(tmp_path / "bin"), CATALOGUE=str(songs), DATASET=str(tmp_path / "set"))
    assert plain.run()
    assert sum(Dataset(str(tmp_path / "set")).rows.values()) == 3


@pytest.mark.parametrize(("statuses", "succeeds"), STATUSES)
def test_how_beams_operator_treats_each_exit_status(
    with_beam: Airflow, tmp_path: Path, statuses: list[int], succeeds: bool
) -> None:
    python = StandIn(tmp_path, "python", before=interpreter(""))
    python.end_with(*statuses)
    with_beam.put(OPERATOR="beam", BIN=str(python.bin), CATALOGUE="/the songs", RUNNER="flink")
    assert with_beam.import_errors() == []
    assert with_beam.run() is succeeds
    for arguments in python.runs():
        command = ["refresh", "/the songs", "/var/lib/melmill/dataset", "--quiet", "--runner=flink"]
        assert arguments[:7] == ["-m", "melmill", *command]
    assert len(python.runs()) == len(statuses)


def test_beams_operator_runs_the_real_command(
    with_beam: Airflow, songs: Path, tmp_path: Path
) -> None:
    """Run the real command with the options that the operator adds."""
    # `shift 2` removes "-m melmill", which comes before "refresh".
    add_program(tmp_path / "bin", "python", interpreter(f"shift 2; {the_command()}"))
    locations = {"CATALOGUE": str(songs), "DATASET": str(tmp_path / "set")}
    with_beam.put(OPERATOR="beam", BIN=str(tmp_path / "bin"), **locations)
    assert with_beam.run()
    assert sum(Dataset(str(tmp_path / "set")).rows.values()) == 3
