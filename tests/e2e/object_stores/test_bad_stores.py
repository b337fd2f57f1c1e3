"""What is wrong with a store, or with how it is reached, is said within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.object_stores.conftest import upload
from tests.e2e.object_stores.gateway import Fault, Gateway
from tests.e2e.object_stores.servers import AZURE_KEY, Place, azure_connection, free_port
from tests.signals import song, write_audio

#: Less than the clients are patient by themselves; most of it is for a machine that is busy.
SECONDS = 60.0


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    write_audio(tmp_path / "songs" / "a.wav", song(4, 8000, 0), 8000)
    return tmp_path / "songs"


#: Runs commands one after another, since starting takes longer than what is tested.
RUN_EACH = """
import contextlib, io, json, sys, time
{patch}
from melmill.pipelines.cli.pipeline_commands import main
ends = []
for command in json.loads(sys.argv[1]):
    sys.argv[1:], said, began = command, io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(said):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
    ends.append((status, said.getvalue(), time.monotonic() - began))
print(json.dumps(ends))
"""


def refusals(
    *commands: tuple[str | Path, ...], environment: dict[str, str], patch: str = ""
) -> list[str]:
    """Run commands, which must each end by itself, with status 2, in plain words and soon."""
    hidden = ("AWS_", "AZURE_", "GOOGLE_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    home = {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
    told = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH.format(patch=patch), told],
        capture_output=True,
        text=True,
        check=False,
        env=clean | home | environment,
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert [status for status, _, _ in ends] == [2] * len(commands), ends
    said = [words for _, words, _ in ends]
    assert "Traceback" not in "".join([*said, done.stderr])
    assert max(seconds for _, _, seconds in ends) < SECONDS
    return said


def refusal(*arguments: str | Path, environment: dict[str, str]) -> str:
    (said,) = refusals(arguments, environment=environment)
    return said


@pytest.fixture
def filled(place: Place, songs: Path) -> Place:
    upload(place, songs, "songs")
    return place


def test_a_bucket_that_is_not_there(filled: Place, songs: Path) -> None:
    nowhere = filled.root[:-4] + "gone"
    commands = (
        ("extract", f"{nowhere}/songs", "out"),
        ("extract", songs, f"{nowhere}/out"),
        ("inspect", f"{nowhere}/out"),
    )
    catalogue, output, dataset = refusals(*commands, environment=filled.environment)
    assert f"{nowhere}/songs does not exist" in catalogue
    assert f"{nowhere}/out: there is no such bucket" in output
    assert f"{nowhere}/out" in dataset


def test_a_server_that_is_not_there(place: Place, songs: Path) -> None:
    nobody = place.through(f"http://127.0.0.1:{free_port()}")
    commands = (
        ("extract", f"{place.root}/songs", "out"),
        ("extract", songs, f"{place.root}/out"),
        ("inspect", f"{place.root}/out"),
    )
    for said in refusals(*commands, environment=nobody.environment):
        assert f"no answer from {nobody.endpoint}" in said
        assert "check the endpoint" in said


# fake-gcs-server asks for no credentials.
@pytest.mark.parametrize("place", ["s3", "azure"], indirect=True)
def test_wrong_credentials(filled: Place, songs: Path) -> None:
    key = azure_connection(filled.endpoint, AZURE_KEY.replace("Eby8", "Aby8"))
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AZURE_STORAGE_CONNECTION_STRING": key}
    environment = filled.environment | wrong[filled.kind == "azure"]
    commands = (
        ("extract", f"{filled.root}/songs", "out"),
        ("extract", songs, f"{filled.root}/out"),
        ("inspect", f"{filled.root}/out"),
    )
    for said in refusals(*commands, environment=environment):
        assert "permission denied" in said
        assert "check the credentials" in said


def test_no_credentials(s3: Place, songs: Path) -> None:
    environment = {"AWS_ENDPOINT_URL": s3.endpoint}
    commands = (("extract", f"{s3.root}/songs", "out"), ("extract", songs, f"{s3.root}/o"))
    for said in refusals(*commands, environment=environment):
        assert "no credentials" in said
        assert "Unable to locate credentials" in said


def test_another_region(s3: Place, songs: Path) -> None:
    # MinIO takes any region where none was configured, as here; so this is none at all.
    environment = s3.environment | {"AWS_DEFAULT_REGION": "not a region"}
    assert "region" in refusal("extract", songs, f"{s3.root}/out", environment=environment)


@pytest.fixture
def refusing(filled: Place, gateway: Gateway) -> tuple[Place, Gateway]:
    return filled.through(gateway.endpoint), gateway


def test_an_output_that_may_only_be_read(refusing: tuple[Place, Gateway], songs: Path) -> None:
    place, gateway = refusing
    denied = Fault("status", 403, "AccessDenied")
    gateway.fault = lambda method, path: denied if method in ("PUT", "POST") else None
    said = refusal("extract", songs, f"{place.root}/out", environment=place.environment)
    assert "permission denied" in said
    assert f"{place.root}/out" in said


def test_credentials_that_have_expired(refusing: tuple[Place, Gateway], songs: Path) -> None:
    place, gateway = refusing
    codes = {"s3": (400, "ExpiredToken"), "azure": (403, "AuthenticationFailed"), "gcs": (401, "x")}
    gateway.fault = lambda method, path: Fault("status", *codes[place.kind])
    said = refusal("extract", songs, f"{place.root}/out", environment=place.environment)
    assert "have expired" in said if place.kind == "s3" else "permission denied" in said
    assert "check the credentials" in said


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [
        ("s3", "s3fs", "s3"),
        ("gs", "gcsfs", "gcs"),
        ("abfs", "adlfs", "azure"),
    ],
)
def test_a_store_whose_package_is_not_installed(
    scheme: str, package: str, extra: str, songs: Path
) -> None:
    patch = f"import sys; sys.modules[{package!r}] = None"
    commands = (("extract", f"{scheme}://b/songs", "o"), ("extract", songs, f"{scheme}://b/o"))
    for said in refusals(*commands, environment={}, patch=patch):
        assert f"pip install 'melmill[{extra}]'" in said
