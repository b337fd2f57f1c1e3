"""Buckets on real servers, with and without a gateway before them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.object_stores.gateway import Gateway, gateway_to, process_to
from tests.e2e.object_stores.servers import KINDS, Place, installed, serving

# gcsfs asks Google's own servers what kind of bucket an emulator's is, for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URL of each server; that of Google's protocol through a gateway, see there."""
    programs = installed()
    if programs is None:
        message = "no servers of object stores: run scripts/object-stores install"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        found = {k: stack.enter_context(serving(k, programs, folder / k)) for k in KINDS}
        found["gcs"] = stack.enter_context(process_to(found["gcs"]))
        yield found


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, endpoints: dict[str, str]) -> Place:
    """A new bucket on each of the servers in turn."""
    return new_place(request.param, endpoints)


@pytest.fixture
def s3(endpoints: dict[str, str]) -> Place:
    """A new bucket on the server of S3's protocol."""
    return new_place("s3", endpoints)


@pytest.fixture
def gateway(place: Place) -> Iterator[Gateway]:
    """A gateway before the server of the bucket."""
    with gateway_to(place.endpoint) as gateway:
        yield gateway


def new_place(kind: str, endpoints: dict[str, str]) -> Place:
    """Make a bucket."""
    place = Place(kind, endpoints[kind], f"bucket-{uuid.uuid4().hex[:12]}")
    place.filesystem().mkdir(place.bucket)
    return place


def upload(place: Place, folder: Path, prefix: str) -> None:
    """Put a folder's files into the bucket, below a prefix."""
    filesystem = place.filesystem()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{place.bucket}/{prefix}/{path.relative_to(folder)}"
            filesystem.pipe_file(target, path.read_bytes())
