"""A fault of a store, or of its address or credentials, is reported within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.object_stores.conftest import upload
from tests.e2e.object_stores.gateway import Fault, Gateway
from tests.e2e.object_stores.servers import (
    AZURE_KEY,
    S3_FIRST,
    Place,
    azure_connection,
    free_port,
)
from tests.signals import song, write_audio

#: Time limit of a command: less than the clients' own patience, and enough on a busy machine.
SECONDS = 60.0


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    write_audio(tmp_path / "songs" / "a.wav", song(4, 8000, 0), 8000)
    return tmp_path / "songs"


#: A program that runs commands one after another, because its start takes longer than they do.
RUN_EACH = """
import contextlib, io, json, sys, time
{patch}
from melmill.pipelines.cli.pipeline_commands import main
results = []
for command in json.loads(sys.argv[1]):
    sys.argv[1:], errors, started = command, io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(errors):
        try:
            main()
            status = 0
        except SystemExit as error:
            status = error.code
    results.append((status, errors.getvalue(), time.monotonic() - started))
print(json.dumps(results))
"""


def refusals(
    *commands: tuple[str | Path, ...], environment: dict[str, str], patch: str = ""
) -> list[str]:
    """Run commands that must soon end with status 2 and a plain message; return the messages."""
    hidden_prefixes = ("AWS_", "AZURE_", "GOOGLE_")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(hidden_prefixes)
    }
    home = {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
    arguments = json.dumps([[str(word) for word in command] for command in commands])
    result = subprocess.run(
        [sys.executable, "-c", RUN_EACH.format(patch=patch), arguments],
        capture_output=True,
        text=True,
        check=False,
        env=clean | home | environment,
    )
    assert result.returncode == 0, result.stderr
    results = json.loads(result.stdout)
    assert [status for status, _, _ in results] == [2] * len(commands), results
    messages = [message for _, message, _ in results]
    assert "Traceback" not in "".join([*messages, result.stderr])
    assert max(seconds for _, _, seconds in results) < SECONDS
    return messages


def refusal(*arguments: str | Path, environment: dict[str, str]) -> str:
    (message,) = refusals(arguments, environment=environment)
    return message


@pytest.fixture
def place_with_songs(place: Place, songs: Path) -> Place:
    upload(place, songs, "songs")
    return place


@pytest.mark.parametrize("place", S3_FIRST, indirect=True)
def test_a_bucket_that_is_not_there(place_with_songs: Place, songs: Path) -> None:
    missing = place_with_songs.root[:-4] + "gone"
    commands = (
        ("extract", f"{missing}/songs", "out"),
        ("extract", songs, f"{missing}/out"),
        ("inspect", f"{missing}/out"),
    )
    catalogue, output, dataset = refusals(*commands, environment=place_with_songs.environment)
    assert f"{missing}/songs does not exist" in catalogue
    assert f"{missing}/out: there is no such bucket" in output
    assert f"{missing}/out" in dataset


def test_a_server_that_is_not_there(place: Place, songs: Path) -> None:
    missing_server = place.through(f"http://127.0.0.1:{free_port()}")
    commands = (
        ("extract", f"{place.root}/songs", "out"),
        ("extract", songs, f"{place.root}/out"),
        ("inspect", f"{place.root}/out"),
    )
    for message in refusals(*commands, environment=missing_server.environment):
        assert f"no answer from {missing_server.endpoint}" in message
        assert "check the endpoint" in message


# fake-gcs-server asks for no credentials.
@pytest.mark.parametrize("place", ["s3", "azure"], indirect=True)
def test_wrong_credentials(place_with_songs: Place, songs: Path) -> None:
    key = azure_connection(place_with_songs.endpoint, AZURE_KEY.replace("Eby8", "Aby8"))
    wrong_settings = {"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AZURE_STORAGE_CONNECTION_STRING": key}
    environment = place_with_songs.environment | wrong_settings[place_with_songs.kind == "azure"]
    commands = (
        ("extract", f"{place_with_songs.root}/songs", "out"),
        ("extract", songs, f"{place_with_songs.root}/out"),
        ("inspect", f"{place_with_songs.root}/out"),
    )
    for message in refusals(*commands, environment=environment):
        assert "permission denied" in message
        assert "check the credentials" in message


def test_no_credentials(s3: Place, songs: Path) -> None:
    environment = {"AWS_ENDPOINT_URL": s3.endpoint}
    commands = (("extract", f"{s3.root}/songs", "out"), ("extract", songs, f"{s3.root}/o"))
    for message in refusals(*commands, environment=environment):
        assert "no credentials" in message
        assert "Unable to locate credentials" in message


def test_another_region(s3: Place, songs: Path) -> None:
    # No region is configured, so MinIO accepts every region; the name here is not even valid.
    environment = s3.environment | {"AWS_DEFAULT_REGION": "not a region"}
    assert "region" in refusal("extract", songs, f"{s3.root}/out", environment=environment)


@pytest.fixture
def place_and_gateway(place_with_songs: Place, gateway: Gateway) -> tuple[Place, Gateway]:
    return place_with_songs.through(gateway.endpoint), gateway


@pytest.mark.parametrize("place", S3_FIRST, indirect=True)
def test_an_output_that_may_only_be_read(
    place_and_gateway: tuple[Place, Gateway], songs: Path
) -> None:
    place, gateway = place_and_gateway
    denied = Fault("status", 403, "AccessDenied")
    gateway.fault = lambda method, path: denied if method in ("PUT", "POST") else None
    message = refusal("extract", songs, f"{place.root}/out", environment=place.environment)
    assert "permission denied" in message
    assert f"{place.root}/out" in message


@pytest.mark.parametrize("place", S3_FIRST, indirect=True)
def test_credentials_that_have_expired(
    place_and_gateway: tuple[Place, Gateway], songs: Path
) -> None:
    place, gateway = place_and_gateway
    codes = {"s3": (400, "ExpiredToken"), "azure": (403, "AuthenticationFailed"), "gcs": (401, "x")}
    gateway.fault = lambda method, path: Fault("status", *codes[place.kind])
    message = refusal("extract", songs, f"{place.root}/out", environment=place.environment)
    assert "have expired" in message if place.kind == "s3" else "permission denied" in message
    assert "check the credentials" in message


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
    for message in refusals(*commands, environment={}, patch=patch):
        assert f"pip install 'melmill[{extra}]'" in message
