"""Tests of the CronJob against Kubernetes' schemas, and of its script with each exit status."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import zoneinfo
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.schedules import FOLDER, ROOT, once_a_day
from tests.deploy.stand_ins import StandIn


@pytest.fixture
def cronjob() -> Any:
    return yaml.safe_load((FOLDER / "cronjob.yaml").read_text())


def pod_of(cronjob: Any) -> Any:
    return cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def versions() -> list[str]:
    """Return the known versions of Kubernetes, from the version in the manifest's head on."""
    (lowest,) = re.findall(r"\(1\.(\d+) or later\)", (FOLDER / "cronjob.yaml").read_text())
    known = kubernetes_validate.utils.all_versions()
    return [version for version in known if int(version.split(".")[1]) >= int(lowest)]


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
def test_the_schema_of_kubernetes_would_refuse_a_mistake(
    cronjob: Any, path: tuple[Any, ...], value: Any
) -> None:
    parent = changed = copy.deepcopy(cronjob)
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed, versions()[-1], strict=True)


def test_what_the_schema_does_not_say_and_the_server_asks_for(cronjob: Any) -> None:
    job, pod = cronjob["spec"]["jobTemplate"]["spec"], pod_of(cronjob)
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
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
    # A run that starts as late and takes as long as allowed ends before the next start.
    longest = spec["startingDeadlineSeconds"] + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert longest <= 24 * 3600


def test_the_cronjob_has_the_workers_image(cronjob: Any) -> None:
    from melmill import __version__ as our_version

    (container,) = pod_of(cronjob)["containers"]
    name, _, tag = container["image"].partition(":")
    assert (name, tag) == ("melmill-worker", our_version)
    assert f"-t {container['image']} " in (ROOT / "deploy/worker.Dockerfile").read_text()


def after(cronjob: Any, status: int) -> str:
    """Return what Kubernetes does with a job whose container ends with this status."""
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
def test_how_kubernetes_treats_each_exit_status(
    cronjob: Any, tmp_path: Path, status: int, becomes: str
) -> None:
    melmill = StandIn(tmp_path)
    melmill.end_with(status)
    (container,) = pod_of(cronjob)["containers"]
    environment = {"CATALOGUE": "s3://b/the songs", "DATASET": "s3://b/set"}
    assert environment.keys() <= {variable["name"] for variable in container["env"]}
    path = f"{melmill.bin}:{os.defpath}"
    completed = subprocess.run(
        [*container["command"], *container["args"]], env={"PATH": path, **environment}
    )
    assert after(cronjob, completed.returncode) == becomes
    (arguments,) = melmill.runs()
    assert arguments[:4] == ["refresh", *environment.values(), "--quiet"]
    assert arguments[4:] == ["--workers", container["resources"]["requests"]["cpu"]]
