"""Tests of the crontab: a parser reads its lines, and its command runs as under cron."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from cronsim import CronSim, CronSimError

from tests.deploy.schedules import FOLDER, lacking, once_a_day
from tests.deploy.stand_ins import StandIn, add_program


class Crontab:
    """A crontab with one entry, parsed like cron does."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
        settings = [re.fullmatch(r"(\w+)\s*=\s*(.*?)\s*", line) for line in lines]
        self.environment = {setting[1]: setting[2] for setting in settings if setting}
        (line,) = [line for line, setting in zip(lines, settings, strict=True) if not setting]
        *fields, command = line.split(maxsplit=5)
        self.schedule = " ".join(fields)
        # A percent sign without a backslash ends the command; the command's input follows.
        command, *typed = re.split(r"(?<!\\)%", command)
        self.command, self.typed = command.replace("\\%", "%"), "\n".join(typed)

    def start(self, home: Path, path: Path, **settings: str) -> subprocess.Popen[str]:
        """Start the command like cron does, with the programs of `path` before all others."""
        # cron itself sets only these variables, and passes none of ours.
        cron_environment = {
            "HOME": str(home),
            "LOGNAME": "melmill",
            "SHELL": "/bin/sh",
            "PATH": "/usr/bin:/bin",
        }
        environment = cron_environment | self.environment | settings
        environment["PATH"] = f"{path}:{environment['PATH']}"
        return subprocess.Popen(
            [environment["SHELL"], "-c", self.command],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def crontab() -> Crontab:
    return Crontab((FOLDER / "crontab").read_text())


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Return paths with blanks, because real names contain blanks."""
    names = ("CATALOGUE", "DATASET", "METRICS", "LOG", "LOCK")
    return {name: str(tmp_path / f"the {name.lower()}") for name in names}


def test_cron_runs_it_once_a_day(crontab: Crontab) -> None:
    assert once_a_day(crontab.schedule)
    assert crontab.typed == ""


@pytest.mark.parametrize("mistake", ["17 24 * * *", "17 3 * *", "17 3 * * MOO"])
def test_a_mistake_in_a_schedule_is_refused(mistake: str) -> None:
    with pytest.raises(CronSimError):
        CronSim(mistake, datetime(2025, 1, 1))


def test_cron_itself_takes_the_file() -> None:
    program = shutil.which("crontab")
    usage = program and subprocess.run([program, "-h"], capture_output=True, text=True).stderr
    checks = {"-T": "-T <file>", "-n": "-n\t(dry run"}  # options of cronie and of Debian's cron
    supported = [option for option, text in checks.items() if text in (usage or "")]
    if program is None or not supported:
        pytest.skip("no crontab is installed that can check a file")
    subprocess.run([program, supported[0], FOLDER / "crontab"], check=True)


def test_cron_reads_lines_of_this_length() -> None:
    assert max(map(len, (FOLDER / "crontab").read_text().splitlines())) < 1000


def test_cron_gives_the_command_what_the_file_says(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    melmill = StandIn(tmp_path)
    crontab.start(tmp_path, melmill.bin, **places).communicate()
    arguments = [places["CATALOGUE"], places["DATASET"], "--quiet", "--metrics-file"]
    assert melmill.runs() == [["refresh", *arguments, places["METRICS"]]]


@pytest.mark.parametrize(
    ("statuses", "last_status", "mailed"),
    [
        ([0], 0, False),
        ([3], 3, False),
        ([4, 0], 0, False),
        ([4, 4, 3], 3, False),
        ([4, 4, 4], 4, True),
        ([1], 1, True),
        ([2], 2, True),
    ],
)
def test_cron_mails_what_somebody_has_to_see(
    crontab: Crontab,
    places: dict[str, str],
    tmp_path: Path,
    statuses: list[int],
    last_status: int,
    mailed: bool,
) -> None:
    melmill = StandIn(tmp_path, before="echo some message >&2")
    melmill.end_with(*statuses)
    add_program(melmill.bin, "sleep", "exit 0")
    output, _ = crontab.start(tmp_path, melmill.bin, **places).communicate()
    assert len(melmill.runs()) == len(statuses)
    log = Path(places["LOG"]).read_text()
    assert re.search(rf"^\d{{4}}-\d\d-\d\dT.* exit status {last_status}$", log, re.MULTILINE)
    assert ("some message" in output) is mailed
    assert bool(output) is mailed


def test_two_runs_of_cron_do_not_overlap(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("flock") is None:
        lacking("flock (util-linux)")
    started, release = tmp_path / "started", tmp_path / "go on"
    wait = (
        f"touch {shlex.quote(str(started))}; until [ -e {shlex.quote(str(release))} ]; do :; done"
    )
    melmill = StandIn(tmp_path, before=wait.replace("do :", "do sleep 0.05"))
    first = crontab.start(tmp_path, melmill.bin, **places)
    try:
        while not started.exists():
            assert first.poll() is None
            time.sleep(0.05)
        output, _ = crontab.start(tmp_path, melmill.bin, **places).communicate(timeout=30)
    finally:
        release.touch()
        first.communicate(timeout=30)
    assert output == ""
    assert len(melmill.runs()) == 1
    statuses = re.findall(r"exit status (\d+)", Path(places["LOG"]).read_text())
    assert statuses == ["75", "0"]
    crontab.start(tmp_path, melmill.bin, **places).communicate(timeout=30)
    assert len(melmill.runs()) == 2  # the run released the lock when it ended


def test_cron_reports_that_it_cannot_lock(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    melmill = StandIn(tmp_path)
    lock = str(tmp_path / "no such folder/lock")
    output, _ = crontab.start(tmp_path, melmill.bin, **places | {"LOCK": lock}).communicate()
    assert "no such folder" in output
    assert melmill.runs() == []
