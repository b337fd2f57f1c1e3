"""The schedules, held against the tools that read them; their commands run with a stand-in."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import requests
import yaml
from cronsim import CronSim, CronSimError
from google.auth.credentials import AnonymousCredentials
from google.cloud import dataflow, scheduler_v1
from google.protobuf import json_format

from tests.deploy.stand_ins import StandIn, add_program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/schedule"


def lacking(what: str) -> None:
    """Skip, but where the tests are to be complete."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def once_a_day(schedule: str) -> bool:
    times = CronSim(schedule, datetime(2025, 1, 1, tzinfo=UTC))
    return (next(times) - next(times)).total_seconds() == -24 * 3600


# cron


class Crontab:
    """A crontab of one line, read as cron does."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
        settings = [re.fullmatch(r"(\w+)\s*=\s*(.*?)\s*", line) for line in lines]
        self.environment = {found[1]: found[2] for found in settings if found}
        (line,) = [line for line, found in zip(lines, settings, strict=True) if not found]
        *fields, command = line.split(maxsplit=5)
        self.schedule = " ".join(fields)
        # A bare percent sign ends the command and begins its input.
        command, *typed = re.split(r"(?<!\\)%", command)
        self.command, self.typed = command.replace("\\%", "%"), "\n".join(typed)

    def start(self, home: Path, path: Path, **settings: str) -> subprocess.Popen[str]:
        """Start the command as cron does, programs of `path` before all others."""
        # All that cron gives by itself; nothing of ours.
        own = {"HOME": str(home), "LOGNAME": "melmill", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        environment = own | self.environment | settings
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
    """With blanks in them, since names have some."""
    names = ("CATALOGUE", "DATASET", "METRICS", "LOG", "LOCK")
    return {name: str(tmp_path / f"the {name.lower()}") for name in names}


def test_cron_runs_it_once_a_day(crontab: Crontab) -> None:
    assert once_a_day(crontab.schedule)
    assert crontab.typed == ""


@pytest.mark.parametrize("slip", ["17 24 * * *", "17 3 * *", "17 3 * * MOO"])
def test_a_slip_in_a_schedule_is_refused(slip: str) -> None:
    with pytest.raises(CronSimError):
        CronSim(slip, datetime(2025, 1, 1))


def test_cron_itself_takes_the_file() -> None:
    program = shutil.which("crontab")
    usage = program and subprocess.run([program, "-h"], capture_output=True, text=True).stderr
    checks = {"-T": "-T <file>", "-n": "-n\t(dry run"}  # cronie's option, and Debian's
    known = [option for option, text in checks.items() if text in (usage or "")]
    if program is None or not known:
        pytest.skip("no crontab here that checks a file")
    subprocess.run([program, known[0], FOLDER / "crontab"], check=True)


def test_cron_reads_lines_of_this_length() -> None:
    assert max(map(len, (FOLDER / "crontab").read_text().splitlines())) < 1000


def test_cron_gives_the_command_what_the_file_says(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    melmill = StandIn(tmp_path)
    crontab.start(tmp_path, melmill.bin, **places).communicate()
    wanted = [places["CATALOGUE"], places["DATASET"], "--quiet", "--metrics-file"]
    assert melmill.runs() == [["refresh", *wanted, places["METRICS"]]]


@pytest.mark.parametrize(
    ("statuses", "in_the_end", "mailed"),
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
    in_the_end: int,
    mailed: bool,
) -> None:
    melmill = StandIn(tmp_path, before="echo some message >&2")
    melmill.end_with(*statuses)
    add_program(melmill.bin, "sleep", "exit 0")
    said, _ = crontab.start(tmp_path, melmill.bin, **places).communicate()
    assert len(melmill.runs()) == len(statuses)
    log = Path(places["LOG"]).read_text()
    assert re.search(rf"^\d{{4}}-\d\d-\d\dT.* exit status {in_the_end}$", log, re.MULTILINE)
    assert ("some message" in said) is mailed
    assert bool(said) is mailed


def test_two_of_cron_do_not_overlap(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("flock") is None:
        lacking("flock (util-linux)")
    started, go_on = tmp_path / "started", tmp_path / "go on"
    wait = f"touch {shlex.quote(str(started))}; until [ -e {shlex.quote(str(go_on))} ]; do :; done"
    melmill = StandIn(tmp_path, before=wait.replace("do :", "do sleep 0.05"))
    first = crontab.start(tmp_path, melmill.bin, **places)
    try:
        while not started.exists():
            assert first.poll() is None
            time.sleep(0.05)
        said, _ = crontab.start(tmp_path, melmill.bin, **places).communicate(timeout=30)
    finally:
        go_on.touch()
        first.communicate(timeout=30)
    assert said == ""
    assert len(melmill.runs()) == 1
    statuses = re.findall(r"exit status (\d+)", Path(places["LOG"]).read_text())
    assert statuses == ["75", "0"]
    crontab.start(tmp_path, melmill.bin, **places).communicate(timeout=30)
    assert len(melmill.runs()) == 2  # the lock is gone with the run


def test_cron_reports_that_it_cannot_lock(
    crontab: Crontab, places: dict[str, str], tmp_path: Path
) -> None:
    melmill = StandIn(tmp_path)
    lock = str(tmp_path / "no such folder/lock")
    said, _ = crontab.start(tmp_path, melmill.bin, **places | {"LOCK": lock}).communicate()
    assert "no such folder" in said
    assert melmill.runs() == []


# systemd


def unit(kind: str) -> dict[str, list[str]]:
    text = (FOLDER / f"melmill-refresh.{kind}").read_text()
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        settings.setdefault(name, []).append(value)
    return settings


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder of both, with a program where they expect melmill."""
    program = add_program(tmp_path / "bin", "melmill", "exit 0")
    for kind in ("service", "timer"):
        text = (FOLDER / f"melmill-refresh.{kind}").read_text()
        text = text.replace("/opt/melmill/bin/melmill", str(program))
        (tmp_path / f"melmill-refresh.{kind}").write_text(text)
    return tmp_path


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # Not what our CI has to have: it is part of systemd, and comes with nothing that we install.
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def complaints(units: Path) -> list[str]:
    paths = [units / "melmill-refresh.service", units / "melmill-refresh.timer"]
    done = systemd_analyze("verify", "--man=no", *paths)
    # The units of this machine that ours need are looked at, too; they are not ours to mend.
    return [line for line in done.stderr.splitlines() if "melmill" in line]


def test_systemd_takes_the_units(units: Path) -> None:
    assert complaints(units) == []


@pytest.mark.parametrize(
    ("kind", "right", "slip"),
    [
        ("service", "SuccessExitStatus=3", "SuccesExitStatus=3"),
        ("service", "Restart=on-failure", "Restart=always"),  # not of a oneshot
        ("service", "SystemCallFilter=@system-service", "SystemCallFilter=@sytem-service"),
        ("service", "bin/melmill refresh", "bin/melmil refresh"),
        ("timer", "OnCalendar=*-*-* 03:00:00", "OnCalendar=*-*-* 33:00:00"),
    ],
)
def test_systemd_would_refuse_a_slip(units: Path, kind: str, right: str, slip: str) -> None:
    path = units / f"melmill-refresh.{kind}"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, slip))
    assert complaints(units)


def test_systemd_starts_it_once_a_day() -> None:
    timer = unit("timer")
    assert timer["Persistent"] == ["true"]
    (calendar,) = timer["OnCalendar"]
    said = systemd_analyze("calendar", "--iterations=2", "--base-time=2025-01-01", calendar).stdout
    days = re.findall(r"20\d\d-\d\d-\d\d", said)
    assert sorted(set(days)) == ["2025-01-01", "2025-01-02"]


def test_systemd_finds_little_left_open(units: Path) -> None:
    path = units / "melmill-refresh.service"
    version = systemd_analyze("--version").stdout.split()[1]
    if int(re.findall(r"\d+", version)[0]) < 250:
        pytest.skip("this systemd-analyze reads no unit that is not installed")
    done = systemd_analyze("security", "--offline=true", "--no-pager", "--threshold=20", path)
    assert done.returncode == 0, done.stdout  # more than 2.0 of 10


def test_what_systemd_starts_and_how_it_takes_its_end() -> None:
    service = unit("service")
    settings = dict(one.split("=", 1) for one in service["Environment"])
    (start,) = service["ExecStart"]
    command = re.sub(r"\$\{(\w+)\}", lambda found: settings[found[1]], start)
    places = [settings["CATALOGUE"], settings["DATASET"]]
    assert shlex.split(command)[1:5] == ["refresh", *places, "--quiet"]
    assert service["Type"] == ["oneshot"]
    assert service["SuccessExitStatus"] == ["3"]
    assert service["RestartPreventExitStatus"] == ["2"]


def test_systemd_lets_decoders_run() -> None:
    service = unit("service")
    # With the former every file fails: tried. Without the latter a decoder out of memory ends all.
    assert "MemoryDenyWriteExecute" not in service
    assert service["OOMPolicy"] == ["continue"]
    # psutil reads /proc/stat.
    assert "ProcSubset" not in service


def test_what_systemd_lets_it_write_is_where_it_writes() -> None:
    service = unit("service")
    settings = dict(one.split("=", 1) for one in service["Environment"])
    state = [Path("/var/lib") / name for name in service["StateDirectory"][0].split()]
    assert Path(settings["DATASET"]).parent in state
    assert Path(settings["METRICS"]).parent in state
    assert settings["HOME"] == f"/var/cache/{service['CacheDirectory'][0]}"


# Kubernetes


@pytest.fixture
def cronjob() -> Any:
    return yaml.safe_load((FOLDER / "cronjob.yaml").read_text())


def pod_of(cronjob: Any) -> Any:
    return cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def versions() -> list[str]:
    """From the one that the manifest's head names, on."""
    (least,) = re.findall(r"\(1\.(\d+) or later\)", (FOLDER / "cronjob.yaml").read_text())
    known = kubernetes_validate.utils.all_versions()
    return [one for one in known if int(one.split(".")[1]) >= int(least)]


@pytest.mark.parametrize("version", [versions()[0], versions()[-1]])
def test_kubernetes_takes_the_cronjob(cronjob: Any, version: str) -> None:
    kubernetes_validate.validate(cronjob, version, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "concurencyPolicy"), "Forbid"),
        (("spec", "startingDeadlineSeconds"), "1h"),
        (("spec", "jobTemplate", "spec", "podFailurePolicy", "rules", 0, "exitCodes"), {}),
        (("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "envfrom"), []),
        (("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "name"), None),
    ],
)
def test_the_schema_of_kubernetes_would_refuse_a_slip(
    cronjob: Any, path: tuple[Any, ...], value: Any
) -> None:
    place = slipped = copy.deepcopy(cronjob)
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slipped, versions()[-1], strict=True)


def test_what_the_schema_does_not_say_and_the_server_asks_for(cronjob: Any) -> None:
    job, pod = cronjob["spec"]["jobTemplate"]["spec"], pod_of(cronjob)
    assert pod["restartPolicy"] == "Never"  # or else no podFailurePolicy
    (container,) = pod["containers"]
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule["action"] in {"FailJob", "Ignore", "Count"}
        assert ("onExitCodes" in rule) is not ("onPodConditions" in rule)
        if codes := rule.get("onExitCodes"):
            assert codes["containerName"] == container["name"]
            assert codes["operator"] == "In"
            assert 0 not in codes["values"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_runs_it_once_a_day_and_never_twice_at_once(cronjob: Any) -> None:
    spec = cronjob["spec"]
    assert once_a_day(spec["schedule"])
    assert spec["timeZone"] in zoneinfo.available_timezones()
    assert spec["concurrencyPolicy"] == "Forbid"
    # A late start, and a run as long as it may be, are over before the next start is due.
    longest = spec["startingDeadlineSeconds"] + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert longest <= 24 * 3600


def test_the_cronjob_has_the_workers_image(cronjob: Any) -> None:
    from transforms import __version__ as ours

    (container,) = pod_of(cronjob)["containers"]
    name, _, tag = container["image"].partition(":")
    assert (name, tag) == ("melmill-worker", ours)
    assert f"-t {container['image']} " in (ROOT / "deploy/worker.Dockerfile").read_text()


def after(cronjob: Any, status: int) -> str:
    """What becomes of a job when its container ends with a status."""
    if status == 0:
        return "complete"
    for rule in cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]:
        if status in rule.get("onExitCodes", {}).get("values", []):
            return {"FailJob": "failed", "Ignore": "again", "Count": "again, counted"}[
                rule["action"]
            ]
    return "again, counted"


@pytest.mark.parametrize(
    ("status", "becomes"),
    [(0, "complete"), (3, "complete"), (1, "again, counted"), (2, "failed"), (4, "again")],
)
def test_how_kubernetes_takes_the_end(
    cronjob: Any, tmp_path: Path, status: int, becomes: str
) -> None:
    melmill = StandIn(tmp_path)
    melmill.end_with(status)
    (container,) = pod_of(cronjob)["containers"]
    said = {"CATALOGUE": "s3://b/the songs", "DATASET": "s3://b/set"}
    assert said.keys() <= {one["name"] for one in container["env"]}
    path = f"{melmill.bin}:{os.defpath}"
    done = subprocess.run([*container["command"], *container["args"]], env={"PATH": path, **said})
    assert after(cronjob, done.returncode) == becomes
    (told,) = melmill.runs()
    assert told[:4] == ["refresh", *said.values(), "--quiet"]
    assert told[4:] == ["--workers", container["resources"]["requests"]["cpu"]]


# Google Cloud Scheduler


@pytest.fixture
def job() -> Any:
    return json.loads((FOLDER / "dataflow-scheduler.json").read_text())


def as_sent(job: Any) -> Any:
    """The body's text in base64, as docs/scheduling.md has it done by jq."""
    sent = copy.deepcopy(job)
    text = json.dumps(job["httpTarget"]["body"], separators=(",", ":"))
    sent["httpTarget"]["body"] = base64.b64encode(text.encode()).decode()
    return sent


def launched(job: Any) -> Any:
    return json_format.ParseDict(
        job["httpTarget"]["body"], dataflow.LaunchFlexTemplateRequest()._pb
    )


def test_the_scheduler_understands_every_field(job: Any) -> None:
    read = json_format.ParseDict(as_sent(job), scheduler_v1.Job()._pb)
    assert json.loads(read.http_target.body) == job["httpTarget"]["body"]
    assert read.http_target.http_method == scheduler_v1.HttpMethod.POST
    assert once_a_day(read.schedule)
    assert read.time_zone in zoneinfo.available_timezones()


def test_dataflow_understands_every_field_of_the_body(job: Any) -> None:
    assert launched(job).launch_parameter.job_name == "melmill-refresh"


def test_the_protocol_buffers_would_refuse_slips(job: Any) -> None:
    job["httpTarget"]["oauthTokn"] = {}
    with pytest.raises(json_format.ParseError, match="oauthTokn"):
        json_format.ParseDict(as_sent(job), scheduler_v1.Job()._pb)
    job["httpTarget"]["body"]["launchParameter"]["environment"]["maxWorker"] = 1
    with pytest.raises(json_format.ParseError, match="maxWorker"):
        launched(job)


class NotSentError(Exception):
    """Instead of being sent."""


class Catch(requests.adapters.BaseAdapter):
    """What Google's client would send."""

    def send(self, request: Any, *rest: Any, **kwargs: Any) -> Any:
        raise NotSentError(request)

    def close(self) -> None: ...


def test_googles_own_client_would_send_the_same(job: Any) -> None:
    target = job["httpTarget"]
    request = dataflow.LaunchFlexTemplateRequest.wrap(launched(job))
    request.project_id, request.location = re.findall(r"(?:projects|locations)/(\w+)", job["name"])
    client = dataflow.FlexTemplatesServiceClient(
        credentials=AnonymousCredentials(), transport="rest"
    )
    client.transport._session.mount("https://", Catch())
    with pytest.raises(NotSentError) as caught:
        client.launch_flex_template(request)
    sent = caught.value.args[0]
    assert (sent.method, sent.url.partition("?")[0]) == (target["httpMethod"], target["uri"])
    assert json_format.ParseDict(json.loads(sent.body), type(launched(job))()) == launched(job)
    assert sent.headers["Content-Type"] == target["headers"]["Content-Type"]


def test_its_parameters_are_the_templates(job: Any) -> None:
    metadata = json.loads((ROOT / "deploy/dataflow/metadata.json").read_text())
    named = {one["name"]: one for one in metadata["parameters"]}
    given = job["httpTarget"]["body"]["launchParameter"]["parameters"]
    assert given.keys() <= named.keys()
    assert {name for name, one in named.items() if not one.get("isOptional")} <= given.keys()
    for name in given.keys() & named.keys():
        for pattern in named[name].get("regexes", []):
            assert re.fullmatch(pattern, given[name])


def test_the_documented_command_makes_what_is_sent(job: Any) -> None:
    (program,) = re.findall(r"jq '(.+?)'", (ROOT / "docs/scheduling.md").read_text())
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    command = ["jq", program, FOLDER / "dataflow-scheduler.json"]
    made = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert made == as_sent(job)
