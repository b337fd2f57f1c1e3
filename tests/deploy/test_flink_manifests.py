"""The manifests, held against the schema that Flink's operator publishes, and our own recipe."""

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
    """The same schema, with no room for names that it does not know, as a server takes it."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(one) for name, one in schema.items()}
    if "properties" in made and isinstance(made["properties"], dict):
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return made


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("mvn") is None:
        if os.environ.get("CI"):
            pytest.fail("Maven is not installed")
        pytest.skip("the schema comes with Maven")
    folder = tmp_path_factory.mktemp("operator")
    command = ["mvn", "-q", "-B", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"]
    subprocess.run(command, check=True, cwd=folder)
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        definition = yaml.safe_load(archive.read(SCHEMA))
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1beta1"]
    found = strict(version["schema"]["openAPIV3Schema"])
    found["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return found


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
def test_the_schema_would_refuse_a_slip(
    schema: Any, manifest: Any, path: tuple[Any, ...], value: Any
) -> None:
    slipped = copy.deepcopy(manifest)
    place = slipped["spec"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(slipped, schema)


def test_the_recipe_is_for_this_cluster(manifest: Any) -> None:
    recipe = yaml.safe_load((ROOT / "configs/runners/flink-kubernetes.yaml").read_text())
    spec = manifest["spec"]
    assert spec["mode"] == "standalone"  # otherwise the number of replicas means nothing
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
    from apache_beam.version import __version__ as beam

    from melmill import __version__ as ours

    spec = manifest["spec"]
    line = spec["image"].partition(":")[2]
    assert spec["flinkVersion"] == f"v{line.replace('.', '_')}"
    (server,) = spec["jobManager"]["podTemplate"]["spec"]["containers"]
    assert server["image"] == f"apache/beam_flink{line}_job_server:{beam}"
    (workers,) = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    assert workers["image"].endswith(f":{ours}")
    dockerfile = (ROOT / "deploy/worker.Dockerfile").read_text()
    assert f"FROM apache/beam_python3.11_sdk:{beam}" in dockerfile
    assert line in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert f"@v{beam}" in (ROOT / "configs/runners/prism.yaml").read_text()
    assert f"beam=v{beam}" in (ROOT / "scripts/beam-programs").read_text()


def test_flink_finds_heap_enough_for_each_slot(manifest: Any, tmp_path: Path) -> None:
    """By Flink's own division of a TaskManager's memory."""
    where = subprocess.run(
        [ROOT / "scripts/flink-cluster", "where"], capture_output=True, text=True, check=True
    )
    jar = Path(where.stdout.strip())
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
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (heap,) = re.findall(r"-Xmx(\d+)", said)
    slots = int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert int(heap) >= slots * 1.5e9
