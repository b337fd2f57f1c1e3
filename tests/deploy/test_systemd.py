"""Tests of the units with systemd's own tools."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.schedules import FOLDER
from tests.deploy.stand_ins import add_program


def unit(kind: str) -> dict[str, list[str]]:
    text = (FOLDER / f"melmill-refresh.{kind}").read_text()
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        settings.setdefault(name, []).append(value)
    return settings


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder with both units, which name an existing program instead of melmill."""
    program = add_program(tmp_path / "bin", "melmill", "exit 0")
    for kind in ("service", "timer"):
        text = (FOLDER / f"melmill-refresh.{kind}").read_text()
        text = text.replace("/opt/melmill/bin/melmill", str(program))
        (tmp_path / f"melmill-refresh.{kind}").write_text(text)
    return tmp_path


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # CI may lack this program: it is part of systemd, and nothing that we install includes it.
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def complaints(units: Path) -> list[str]:
    paths = [units / "melmill-refresh.service", units / "melmill-refresh.timer"]
    completed = systemd_analyze("verify", "--man=no", *paths)
    # systemd also checks this machine's units that ours depend on; their faults do not count.
    return [line for line in completed.stderr.splitlines() if "melmill" in line]


def test_systemd_takes_the_units(units: Path) -> None:
    assert complaints(units) == []


@pytest.mark.parametrize(
    ("kind", "right", "mistake"),
    [
        ("service", "SuccessExitStatus=3 143", "SuccesExitStatus=3 143"),
        ("service", "Restart=on-failure", "Restart=always"),  # not allowed in a oneshot unit
        ("service", "SystemCallFilter=@system-service", "SystemCallFilter=@sytem-service"),
        ("service", "bin/melmill refresh", "bin/melmil refresh"),
        ("timer", "OnCalendar=*-*-* 03:00:00", "OnCalendar=*-*-* 33:00:00"),
    ],
)
def test_systemd_would_refuse_a_mistake(units: Path, kind: str, right: str, mistake: str) -> None:
    path = units / f"melmill-refresh.{kind}"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, mistake))
    assert complaints(units)


def test_systemd_starts_it_once_a_day() -> None:
    timer = unit("timer")
    assert timer["Persistent"] == ["true"]
    (calendar,) = timer["OnCalendar"]
    output = systemd_analyze(
        "calendar", "--iterations=2", "--base-time=2025-01-01", calendar
    ).stdout
    days = re.findall(r"20\d\d-\d\d-\d\d", output)
    assert sorted(set(days)) == ["2025-01-01", "2025-01-02"]


def test_systemd_rates_the_exposure_as_low(units: Path) -> None:
    path = units / "melmill-refresh.service"
    version = systemd_analyze("--version").stdout.split()[1]
    if int(re.findall(r"\d+", version)[0]) < 250:
        pytest.skip("this systemd-analyze reads only installed units")
    completed = systemd_analyze("security", "--offline=true", "--no-pager", "--threshold=20", path)
    # The status is not 0 if the exposure is more than 2.0 of 10.
    assert completed.returncode == 0, completed.stdout


def test_what_systemd_starts_and_how_it_treats_exit_statuses() -> None:
    service = unit("service")
    settings = dict(setting.split("=", 1) for setting in service["Environment"])
    (start,) = service["ExecStart"]
    command = re.sub(r"\$\{(\w+)\}", lambda match: settings[match[1]], start)
    locations = [settings["CATALOGUE"], settings["DATASET"]]
    assert shlex.split(command)[1:5] == ["refresh", *locations, "--quiet"]
    assert service["Type"] == ["oneshot"]
    assert service["SuccessExitStatus"] == ["3 143"]
    assert service["RestartPreventExitStatus"] == ["2"]


def test_systemd_lets_decoders_run() -> None:
    service = unit("service")
    # With MemoryDenyWriteExecute every file fails (tried). Without OOMPolicy=continue a decoder
    # that runs out of memory ends the whole service.
    assert "MemoryDenyWriteExecute" not in service
    assert service["OOMPolicy"] == ["continue"]
    # psutil reads /proc/stat.
    assert "ProcSubset" not in service


def test_what_systemd_lets_it_write_is_where_it_writes() -> None:
    service = unit("service")
    settings = dict(setting.split("=", 1) for setting in service["Environment"])
    state = [Path("/var/lib") / name for name in service["StateDirectory"][0].split()]
    assert Path(settings["DATASET"]).parent in state
    assert Path(settings["METRICS"]).parent in state
    assert settings["HOME"] == f"/var/cache/{service['CacheDirectory'][0]}"
