"""Real servers with the three stores' protocols, on this machine's loopback interface only.

``scripts/object-stores`` installs them. MinIO speaks S3, fake-gcs-server speaks the JSON API of
Google Cloud Storage, and Azurite speaks the API of Azure Blob Storage.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from melmill.transforms.store.folders import Store

KINDS = ("s3", "gcs", "azure")

#: Parameters of tests in which the others than S3 are slow and show little more.
SLOW_GCS, SLOW_AZURE = (pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])
S3_FIRST = ("s3", SLOW_GCS, SLOW_AZURE)

ROOT = Path(__file__).parents[3]
AZURE_ACCOUNT = "devstoreaccount1"
# The account and the key of every Azurite, from its documentation.
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_STARTING_SECONDS = 60.0


def installed() -> Path | None:
    """Return the folder of the servers' programs, or None if they are not installed."""
    command = [str(ROOT / "scripts" / "object-stores"), "where"]
    folder = Path(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    )
    return folder if (folder / "complete").exists() else None


@dataclass(frozen=True)
class Place:
    """A bucket on a running server, with its address."""

    kind: str
    endpoint: str
    bucket: str

    @property
    def root(self) -> str:
        """URL of the bucket."""
        return f"{ {'s3': 's3', 'gcs': 'gs', 'azure': 'abfs'}[self.kind] }://{self.bucket}"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the server for fsspec."""
        match self.kind:
            case "s3":
                return {"endpoint_url": self.endpoint, "key": "tester", "secret": "tester-secret"}
            case "gcs":
                return {"endpoint_url": self.endpoint, "token": "anon"}
        return {"connection_string": azure_connection(self.endpoint)}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a user, by the conventions of each ecosystem."""
        match self.kind:
            case "s3":
                return {
                    "AWS_ACCESS_KEY_ID": "tester",
                    "AWS_SECRET_ACCESS_KEY": "tester-secret",
                    "AWS_ENDPOINT_URL": self.endpoint,
                    "AWS_EC2_METADATA_DISABLED": "true",
                }
            case "gcs":
                return {"STORAGE_EMULATOR_HOST": self.endpoint, "NO_GCE_CHECK": "true"}
        return {"AZURE_STORAGE_CONNECTION_STRING": azure_connection(self.endpoint)}

    def filesystem(self) -> Any:
        """Return fsspec's filesystem for the store."""
        protocol = self.root.partition("://")[0]
        return fsspec.filesystem(protocol, use_listings_cache=False, **self.options)

    def store(self, folder: str) -> Store:
        """Return a folder of the bucket as a store."""
        return Store(f"{self.root}/{folder}", tuple(self.options.items()))

    def through(self, endpoint: str) -> Place:
        """Return the same bucket at another address."""
        return Place(self.kind, endpoint, self.bucket)


def new_place(kind: str, endpoints: dict[str, str]) -> Place:
    """Make a bucket and return it."""
    place = Place(kind, endpoints[kind], f"bucket-{uuid.uuid4().hex[:12]}")
    place.filesystem().mkdir(place.bucket)
    return place


def azure_connection(endpoint: str, key: str = AZURE_KEY) -> str:
    """Return the connection string of the account on a server."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={key};"
        f"BlobEndpoint={endpoint}/{AZURE_ACCOUNT};"
    )


def free_port() -> int:
    """Return a port of the loopback interface on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(kind: str, programs: Path, data: Path) -> Iterator[str]:
    """Run the server of a protocol; yield its URL."""
    port = free_port()
    command, environment = _command(kind, programs, data, port)
    with running(command, environment, port, data.parent / f"{kind}.log") as url:
        yield url


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], port: int, log: Path
) -> Iterator[str]:
    """Run a server that listens on a port; yield its URL."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _await_port(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _command(
    kind: str, programs: Path, data: Path, port: int
) -> tuple[list[str], Mapping[str, str]]:
    data.mkdir()
    match kind:
        case "s3":
            account = {"MINIO_ROOT_USER": "tester", "MINIO_ROOT_PASSWORD": "tester-secret"}
            quiet = {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
            command = [f"{programs}/minio", "server", "--address", f"127.0.0.1:{port}", str(data)]
            return command, account | quiet
        case "gcs":
            host = ["-scheme", "http", "-host", "127.0.0.1", "-port", f"{port}"]
            host += ["-public-host", f"127.0.0.1:{port}"]
            disk = ["-backend", "filesystem", "-filesystem-root", str(data)]
            return [f"{programs}/fake-gcs-server", *host, *disk, "-log-level", "warn"], {}
    program = f"{programs}/node_modules/.bin/azurite-blob"
    host = ["--blobHost", "127.0.0.1", "--blobPort", f"{port}", "--location", str(data)]
    # The client may be newer than the API versions that Azurite knows. Azurite sends no telemetry.
    return [program, *host, "--skipApiVersionCheck", "--disableTelemetry", "--silent"], {}


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTING_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
