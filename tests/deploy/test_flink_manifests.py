"""Tests of the manifests against the published schema of Flink's operator and our own recipe."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy/flink/flinkdeployment.yaml"
OPERATOR = "1.10.0"
ARTIFACT = f"org.apache.flink:flink-kubernetes-operator-api:{OPERATOR}"
SCHEMA = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"


def strict(schema: Any) -> Any:
    """Return the schema without room for unknown names, as a server applies it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(part) for name, part in schema.items()}
    if "properties" in result and isinstance(result["properties"], dict):
        result.setdefault("additionalProperties", False)
    if result.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return result


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("mvn") is None:
        if os.environ.get("CI"):
            pytest.fail("Maven is not installed")
        pytest.skip("Maven is not installed; it downloads the schema")
    folder = tmp_path_factory.mktemp("operator")
    command = ["mvn", "-q", "-B", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"]
    subprocess.run(command, check=True, cwd=folder)
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        definition = yaml.safe_load(archive.read(SCHEMA))
    (version,) = [
        version for version in definition["spec"]["versions"] if version["name"] == "v1beta1"
    ]
    result = strict(version["schema"]["openAPIV3Schema"])
    result["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return result


@pytest.fixture
def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text())


def test_the_operator_takes_the_manifest(schema: Any, manifest: Any) -> None:
    jsonschema.validate(manifest, schema)
    assert manifest["apiVersion"] == "flink.apache.org/v1beta1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("taskManager", "replicsa"), 3),
        (("taskManager", "podTemplate", "spec", "containers", 0, "imagee"), "x"),
        (("flinkVersion",), "v0_1"),
    ],
)
def test_the_schema_would_refuse_a_mistake(
    schema: Any, manifest: Any, path: tuple[Any, ...], value: Any
) -> None:
    changed = copy.deepcopy(manifest)
    parent = changed["spec"]
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, schema)


def test_the_recipe_is_for_this_cluster(manifest: Any) -> None:
    recipe = yaml.safe_load((ROOT / "configs/runners/flink-kubernetes.yaml").read_text())
    spec = manifest["spec"]
    assert spec["mode"] == "standalone"  # only this mode uses the number of replicas
    managers = spec["taskManager"]["replicas"]
    slots = int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert recipe["parallelism"] == (managers - 1) * slots
    assert recipe["sdk_worker_parallelism"] == slots
    (workers,) = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    (port,) = workers["ports"]
    assert recipe["environment_config"] == f"localhost:{port['containerPort']}"
    (server,) = spec["jobManager"]["podTemplate"]["spec"]["containers"]
    ports = [port["containerPort"] for port in server["ports"]]
    assert [recipe["job_endpoint"], recipe["artifact_endpoint"]] == [
        f"localhost:{port}" for port in ports
    ]
    assert workers["resources"]["requests"]["cpu"] == str(slots)


def test_images_are_of_the_versions_that_work_together(manifest: Any) -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions
    from apache_beam.version import __version__ as beam_version

    from melmill import __version__ as our_version

    spec = manifest["spec"]
    flink_version = spec["image"].partition(":")[2]
    assert spec["flinkVersion"] == f"v{flink_version.replace('.', '_')}"
    (server,) = spec["jobManager"]["podTemplate"]["spec"]["containers"]
    assert server["image"] == f"apache/beam_flink{flink_version}_job_server:{beam_version}"
    (workers,) = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    assert workers["image"].endswith(f":{our_version}")
    dockerfile = (ROOT / "deploy/worker.Dockerfile").read_text()
    assert f"FROM apache/beam_python3.11_sdk:{beam_version}" in dockerfile
    assert flink_version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert f"@v{beam_version}" in (ROOT / "configs/runners/prism.yaml").read_text()
    assert f"beam=v{beam_version}" in (ROOT / "scripts/beam-programs").read_text()


def test_flink_has_enough_heap_for_each_slot(manifest: Any, tmp_path: Path) -> None:
    """Use Flink's own division of a TaskManager's memory."""
    completed = subprocess.run(
        [ROOT / "scripts/flink-cluster", "where"], capture_output=True, text=True, check=True
    )
    jar = Path(completed.stdout.strip())
    if not jar.exists():
        if os.environ.get("CI"):
            pytest.fail("no Flink: run scripts/flink-cluster install")
        pytest.skip("no Flink: run scripts/flink-cluster install")
    spec = manifest["spec"]
    settings = {
        **spec["flinkConfiguration"],
        "taskmanager.memory.process.size": spec["taskManager"]["resource"]["memory"],
        "taskmanager.cpu.cores": "1.0",
    }
    lines = [f"{name}: {value}\n" for name, value in settings.items()]
    (tmp_path / "flink-conf.yaml").write_text("".join(lines))
    program = "org.apache.flink.runtime.util.bash.BashJavaUtils"
    command = ["java", "-cp", str(jar), program, "GET_TM_RESOURCE_PARAMS", "--configDir", tmp_path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (heap,) = re.findall(r"-Xmx(\d+)", output)
    slots = int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert int(heap) >= slots * 1.5e9
