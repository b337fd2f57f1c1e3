"""Buckets on real servers, with or without a gateway in front of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.object_stores.gateway import Gateway, gateway_to
from tests.e2e.object_stores.servers import KINDS, Place, new_place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, endpoints: dict[str, str]) -> Place:
    """Return a new bucket, on each of the servers in turn."""
    return new_place(request.param, endpoints)


@pytest.fixture
def s3(endpoints: dict[str, str]) -> Place:
    """Return a new bucket on the server with S3's protocol."""
    return new_place("s3", endpoints)


@pytest.fixture
def gateway(place: Place) -> Iterator[Gateway]:
    """Yield a gateway in front of the bucket's server."""
    with gateway_to(place.endpoint) as gateway:
        yield gateway


def upload(place: Place, folder: Path, prefix: str) -> None:
    """Upload a folder's files to the bucket, below a prefix."""
    filesystem = place.filesystem()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{place.bucket}/{prefix}/{path.relative_to(folder)}"
            filesystem.pipe_file(target, path.read_bytes())
