"""Temporary faults of a store cost only time. A permanent fault is reported."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import Cause, DatasetError, RecordingError
from melmill.transforms.store.filesystems import SILENCE_SECONDS, open_filesystem
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import StoredObject, fingerprint_of
from tests.e2e.object_stores.conftest import new_place, upload
from tests.e2e.object_stores.gateway import Fault, Gateway, gateway_to
from tests.e2e.object_stores.servers import S3_FIRST, SLOW_AZURE, Place
from tests.pipeline_runs import melmill
from tests.signals import song, write_audio

#: Faults after which a retry succeeds.
TEMPORARY_FAULTS = (
    Fault("status", 500, "InternalError"),
    Fault("status", 503, "SlowDown"),
    Fault("reset"),
    Fault("half"),
)
SHARE = 0.05
SONGS = 24


class Chance:
    """A fault in one of twenty requests, of each kind in turn, by a seeded random number."""

    def __init__(self) -> None:
        self._random, self._lock = random.Random(0), threading.Lock()
        self.faults: Counter[str] = Counter()

    def __call__(self, method: str, path: str) -> Fault | None:
        with self._lock:
            if self._random.random() >= SHARE:
                return None
            fault = TEMPORARY_FAULTS[self.faults.total() % len(TEMPORARY_FAULTS)]
            self.faults[f"{fault.kind} {fault.status}"] += 1
            return fault


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for number in range(SONGS):
        suffix = ("wav", "flac", "ogg")[number % 3]
        write_audio(folder / f"{number:02d}.{suffix}", song(5, 22_050, number), 22_050)
    return folder


# Azure's client waits 15 seconds before a retry, and Google's client waits a few seconds.


@pytest.fixture(params=["s3", "gcs", SLOW_AZURE])
def place_and_gateway(
    request: pytest.FixtureRequest, endpoints: dict[str, str], songs: Path
) -> Iterator[tuple[Place, Gateway]]:
    """Yield a bucket with songs and the gateway in front of it."""
    place = new_place(request.param, endpoints)
    upload(place, songs, "songs")
    with gateway_to(place.endpoint) as gateway:
        yield place.through(gateway.endpoint), gateway


def extract(place: Place, output: str, workers: int) -> None:
    sections = ("catalogue", "output")
    settings = [
        f"--set={section}.storage_options.{name}={value}"
        for section in sections
        for name, value in place.options.items()
    ]
    more = ("--set=output.formats=[parquet,tfrecord]", f"--workers={workers}")
    result = melmill("extract", f"{place.root}/songs", f"{place.root}/{output}", *settings, *more)
    assert result.returncode == 0, result.stdout + result.stderr


def content(store: Store) -> dict[str, bytes]:
    """Return every file of a dataset except the log, which contains times."""
    names = [name for name in store.names() if not name.startswith("_delta_log/")]
    return {name: store.read(name) for name in names}


# test_refresh.py makes the same faults in a quick test: it compares rows, this compares bytes.
@pytest.mark.slow
@pytest.mark.parametrize("place_and_gateway", ["s3", "gcs", "azure"], indirect=True)
def test_one_fault_in_twenty_requests_changes_no_byte(
    place_and_gateway: tuple[Place, Gateway],
) -> None:
    place, gateway = place_and_gateway
    extract(place, "undisturbed", 0)
    chance = Chance()
    gateway.fault = chance
    extract(place, "disturbed", 2)
    gateway.fault = lambda method, path: None
    assert chance.faults.total() >= 5
    expected, actual = (content(place.store(name)) for name in ("undisturbed", "disturbed"))
    assert actual.keys() == expected.keys()
    differing = [name for name in expected if actual[name] != expected[name]]
    # The card contains the dataset's path.
    assert [name for name in differing if name != "README.md"] == []
    # Without the gateway: it runs in this process, whose threads Delta's client blocks.
    direct = place.through(gateway.target)
    assert Dataset(f"{place.root}/disturbed", direct.options).version == 0


@pytest.mark.parametrize("place_and_gateway", S3_FIRST, indirect=True)
@pytest.mark.parametrize(
    "fault", TEMPORARY_FAULTS, ids=lambda fault: f"{fault.kind} {fault.status}"
)
def test_a_request_is_retried_after_each_fault(
    place_and_gateway: tuple[Place, Gateway], fault: Fault
) -> None:
    place, gateway = place_and_gateway
    faults_left = [2]

    def fail_twice(method: str, path: str) -> Fault | None:
        faults_left[0] -= 1
        return fault if faults_left[0] >= 0 else None

    store = place.store("folder")
    for request in (
        lambda: store.put("a.bin", b"content"),
        lambda: store.size("a.bin"),
        lambda: store.read("a.bin"),
        lambda: list(store.names()),
    ):
        faults_left[0] = 2
        gateway.fault = fail_twice
        request()
        # An empty answer has no half, so the client need not retry.
        assert faults_left[0] < (2 if fault.kind == "half" else 0)
    gateway.fault = lambda method, path: None
    assert store.read("a.bin") == b"content"


#: Options with which each client waits two seconds for an answer, not a minute.
SHORT_TIMEOUTS = {
    "s3": {"config_kwargs": {"read_timeout": 2}},
    "gcs": {"requests_timeout": 2},
    "azure": {"read_timeout": 2},
}


@pytest.mark.parametrize("place_and_gateway", ["s3", "gcs", SLOW_AZURE], indirect=True)
def test_a_request_without_an_answer_is_retried(place_and_gateway: tuple[Place, Gateway]) -> None:
    place, gateway = place_and_gateway
    stalled: list[str] = []

    def stall_once(method: str, path: str) -> Fault | None:
        if stalled or method != "GET":
            return None
        stalled.append(path)
        return Fault("stall", seconds=600)

    options = {**place.options, **SHORT_TIMEOUTS[place.kind]}
    store = Store(f"{place.root}/folder", tuple(options.items()))
    store.put("a.bin", b"content" * 1000)
    gateway.fault = stall_once
    started = time.monotonic()
    assert store.read("a.bin") == b"content" * 1000
    details = place.filesystem().info(f"{place.bucket}/folder/a.bin")
    stalled.clear()
    source = StoredObject(
        f"{place.root}/folder/a.bin", 7000, tuple(options.items()), fingerprint_of(details)
    )
    with source.open() as file:
        assert file.read() == b"content" * 1000
    assert stalled
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("gs://bucket/folder", "requests_timeout"),
        ("abfs://folder@account.dfs.core.windows.net/x", "_timeout_kwargs"),
    ],
)
def test_no_client_waits_for_ever(url: str, name: str) -> None:
    options = (("token", "anon"),) if url.startswith("gs") else (("anon", True),)
    filesystem, _ = open_filesystem(url, options)
    timeout = getattr(filesystem, name)
    assert (timeout["read_timeout"] if isinstance(timeout, dict) else timeout) == SILENCE_SECONDS


def test_a_permanent_fault_is_reported_at_once_and_once(
    place_and_gateway: tuple[Place, Gateway],
) -> None:
    place, gateway = place_and_gateway
    source = StoredObject(f"{place.root}/songs/00.wav", -1, tuple(place.options.items()))
    gateway.fault = lambda method, path: Fault("status", 403, "AccessDenied")
    gateway.requests.clear()
    with pytest.raises(RecordingError) as raised:
        source.stat()
    assert raised.value.cause is Cause.PERMISSION_DENIED
    with pytest.raises(DatasetError, match="permission denied"):
        place.store("folder").read("a.bin")
    # Some clients also look at the container or at the folder.
    assert len(gateway.requests) <= 6
