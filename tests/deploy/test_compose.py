"""Tests of compose.yaml against the Compose Specification's schema, and of its commands."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from melmill.pipelines.dataset import Dataset
from tests.deploy.dockerfiles import LAUNCHER, ROOT, Dockerfile
from tests.deploy.schedules import lacking
from tests.e2e.object_stores.servers import free_port, installed, running

FILE = ROOT / "deploy/compose.yaml"


@pytest.fixture
def services() -> Any:
    return yaml.safe_load(FILE.read_text())["services"]


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return the schema of compose-spec/compose-spec, as check-jsonschema ships it."""
    return get_builtin_schema("vendor.compose-spec")


def test_the_schema_takes_the_file(schema: Any) -> None:
    assert schema["title"] == "Compose Specification"
    jsonschema.validate(yaml.safe_load(FILE.read_text()), schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("service",), {}),
        (("services", "extract", "comand"), ["extract"]),
        (("services", "extract", "depends_on", "songs", "condition"), "service_completed"),
        (("services", "minio", "healthcheck", "every"), "2s"),
        (("services", "minio", "ports"), "9000:9000"),
        (("services", "songs", "build", "contxt"), "."),
    ],
)
def test_the_schema_would_refuse_a_mistake(schema: Any, path: tuple[str, ...], value: Any) -> None:
    changed = parent = copy.deepcopy(yaml.safe_load(FILE.read_text()))
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, schema)


def test_each_service_waits_for_what_it_needs(services: Any) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert waits == {
        "minio": {},
        "songs": {"minio": {"condition": "service_healthy"}},
        "extract": {"songs": {"condition": "service_completed_successfully"}},
    }
    assert services["minio"]["healthcheck"]["test"][0] == "CMD"


def test_the_image_is_the_launchers_and_is_built_once(services: Any) -> None:
    from melmill import __version__ as version

    image = f"melmill-launcher:{version}"
    assert services["songs"]["image"] == services["extract"]["image"] == image
    assert f"-t {image} " in LAUNCHER.read_text()
    (build,) = (service["build"] for service in services.values() if "build" in service)
    # Docker takes the context from the file's folder, and the Dockerfile from the context.
    context = (FILE.parent / build["context"]).resolve()
    assert (context, context / build["dockerfile"]) == (ROOT, LAUNCHER)


def test_the_clients_have_the_stores_address_and_password(services: Any) -> None:
    store = services["minio"]
    for name in ("songs", "extract"):
        environment = services[name]["environment"]
        assert environment["AWS_ACCESS_KEY_ID"] == store["environment"]["MINIO_ROOT_USER"]
        assert environment["AWS_SECRET_ACCESS_KEY"] == store["environment"]["MINIO_ROOT_PASSWORD"]
        assert environment["AWS_ENDPOINT_URL"] == "http://minio:9000"
    # The password is public, so only this machine may connect.
    assert all(port.startswith("127.0.0.1:") for port in store["ports"])


@contextmanager
def minio(service: Any, folder: Path) -> Iterator[str]:
    """Run the store's command with its environment, on other ports and on loopback."""
    programs = installed()
    if programs is None:
        lacking("MinIO (scripts/object-stores install)")
    port = free_port()
    places = {"/data": str(folder / "data"), ":9001": f"127.0.0.1:{free_port()}"}
    arguments = [places.get(word, word) for word in service["command"]]
    assert not {*places} & {*arguments}
    command = [f"{programs}/minio", *arguments, "--address", f"127.0.0.1:{port}"]
    with running(command, service["environment"], port, folder / "minio.log") as url:
        yield url


def run(service: Any, endpoint: str, folder: Path) -> str:
    """Run a service's command with its environment, as in its image; return what it prints."""
    programs = {"python": [sys.executable], "melmill": [sys.executable, "-m", "melmill"]}
    entrypoint = service.get("entrypoint", Dockerfile.read(LAUNCHER).entrypoint)
    command = [*programs[entrypoint[0]], *entrypoint[1:], *service["command"]]
    environment = {**clean(os.environ), **service["environment"], "AWS_ENDPOINT_URL": endpoint}
    completed = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("AWS_")}


@pytest.mark.slow
def test_its_commands_make_a_dataset_from_songs_in_the_store(services: Any, tmp_path: Path) -> None:
    with minio(services["minio"], tmp_path) as endpoint:
        assert "24 songs" in run(services["songs"], endpoint, tmp_path)
        assert "Committed version 0" in run(services["extract"], endpoint, tmp_path)
        variables = services["extract"]["environment"]
        keys = {
            "key": variables["AWS_ACCESS_KEY_ID"],
            "secret": variables["AWS_SECRET_ACCESS_KEY"],
        }
        output = services["extract"]["command"][-1]
        dataset = Dataset(output, {"endpoint_url": endpoint, **keys})
        uris = set(dataset.as_arrow().to_table(columns=["uri"])["uri"].to_pylist())
        assert len(uris) == 24
        assert all(uri.startswith("s3://melmill/songs/album-") for uri in uris)
        # A second `docker compose up` runs both again.
        assert run(services["songs"], endpoint, tmp_path) == ""
        assert "already" in run(services["extract"], endpoint, tmp_path)
