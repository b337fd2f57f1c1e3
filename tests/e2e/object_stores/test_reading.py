"""How recordings are read from a store: the number of requests and bytes, and the version."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from azure.storage.blob import BlobServiceClient

from melmill.transforms.catalogue.parts import catalogue_parts, list_part, open_catalogue
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.probe_recordings import probe_recording
from melmill.transforms.store.objects import StoredObject, fingerprint_of
from melmill.transforms.store.pages import directory_pages
from tests.e2e.object_stores.conftest import new_place
from tests.e2e.object_stores.gateway import Gateway, gateway_to
from tests.e2e.object_stores.servers import KINDS, S3_FIRST, Place
from tests.pipeline_runs import make_test_job, melmill_json
from tests.signals import noise, song, write_audio

RATE = 44_100
LARGE_BYTES = 300 * 10**6


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return a FLAC of 300 MB: half an hour of loud noise in stereo."""
    buffer, part = io.BytesIO(), noise(10, RATE, 0, channels=2)
    with soundfile.SoundFile(buffer, "w", RATE, 2, format="FLAC", subtype="PCM_16") as file:
        while buffer.tell() < LARGE_BYTES:
            file.write(np.roll(part, file.frames, axis=0))
    return buffer.getvalue()


@pytest.fixture(params=KINDS)
def place_and_gateway(
    request: pytest.FixtureRequest, endpoints: dict[str, str]
) -> Iterator[tuple[Place, Gateway]]:
    """Yield a bucket and the gateway in front of it, which records requests."""
    place = new_place(request.param, endpoints)
    with gateway_to(place.endpoint) as gateway:
        yield place.through(gateway.endpoint), gateway


def list_objects(place: Place, folder: str) -> list[StoredObject]:
    """Return the objects below a folder, as a listing describes them."""
    options = tuple(place.options.items())
    catalogue = open_catalogue(f"{place.root}/{folder}", storage_options=options)
    return [
        StoredObject(recording.uri, recording.size_bytes, options, recording.fingerprint)
        for part in catalogue_parts(catalogue)
        for recording in list_part(catalogue, part)
    ]


def test_ten_seconds_of_a_large_file_take_less_than_three_times_their_bytes(
    place_and_gateway: tuple[Place, Gateway], large: bytes
) -> None:
    place, gateway = place_and_gateway
    place.filesystem().pipe_file(f"{place.bucket}/songs/large.flac", large)
    (source,) = list_objects(place, "songs")
    audio = probe_audio(source)
    start = audio.frames // 2
    needed = len(large) * 10 * RATE / audio.frames
    gateway.requests.clear()
    with open_audio(source, audio, start, start + 10 * RATE) as reader:
        blocks = list(reader.blocks(start, start + 10 * RATE, RATE))
    assert sum(map(len, blocks)) == 10 * RATE
    assert {request.method for request in gateway.requests} == {"GET"}
    assert sum(request.sent_bytes for request in gateway.requests) < 3 * needed
    assert len(gateway.requests) <= 12


def test_a_small_file_is_one_request(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = place_and_gateway
    write_audio(tmp_path / "a.flac", song(30, RATE, 0, 2), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    place.filesystem().pipe_file(f"{place.bucket}/songs/a.flac", content)
    (source,) = list_objects(place, "songs")
    audio = probe_audio(source)
    gateway.requests.clear()
    with open_audio(source, audio) as reader:
        assert sum(map(len, reader.blocks(0, audio.frames, RATE))) == 30 * RATE
    assert [(request.method, request.sent_bytes) for request in gateway.requests] == [
        ("GET", len(content))
    ]

    gateway.requests.clear()
    source.prefetch()
    with open_audio(source, audio) as reader:
        assert sum(map(len, reader.blocks(0, audio.frames, RATE))) == 30 * RATE
    assert len(gateway.requests) == 1


def test_upcoming_headers_are_fetched_while_a_header_is_read(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = place_and_gateway
    for number in range(3):
        write_audio(tmp_path / f"{number}.flac", song(4, RATE, number), RATE)
        content = (tmp_path / f"{number}.flac").read_bytes()
        place.filesystem().pipe_file(f"{place.bucket}/songs/{number}.flac", content)
    settings = [
        f"catalogue.storage_options.{name}={value}" for name, value in place.options.items()
    ]
    job = make_test_job(f"{place.root}/songs", tmp_path / "out", *settings)
    first, *upcoming = sorted(
        (
            recording
            for part in catalogue_parts(job.catalogue)
            for recording in list_part(job.catalogue, part)
        ),
        key=lambda recording: recording.uri,
    )
    gateway.requests.clear()
    decoder = DecoderProcess(job.limits.memory_bytes)
    try:
        probe_recording(first, job, decoder, upcoming)
        probe_recording(upcoming[0], job, decoder, upcoming[1:])
        deadline = time.monotonic() + 10
        while not gateway.reads("2.flac") and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        decoder.close()
    # The last recording was fetched, too, although it was not probed yet.
    for number in range(3):
        assert [request.method for request in gateway.reads(f"{number}.flac")] == ["GET"]


def test_another_version_is_not_read(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, _ = place_and_gateway
    write_audio(tmp_path / "a.wav", song(3, RATE, 0), RATE)
    path = f"{place.bucket}/songs/a.wav"
    place.filesystem().pipe_file(path, (tmp_path / "a.wav").read_bytes())
    (source,) = list_objects(place, "songs")
    assert source.holds_version
    audio = probe_audio(source)
    write_audio(tmp_path / "a.wav", song(3, RATE, 1), RATE)
    place.filesystem().pipe_file(path, (tmp_path / "a.wav").read_bytes())
    # On Google's store, another version is another object.
    cause = Cause.NOT_FOUND if place.kind == "gcs" else Cause.CHANGED
    with pytest.raises(RecordingError) as raised, open_audio(source, audio) as reader:
        list(reader.blocks(0, audio.frames, RATE))
    assert raised.value.cause is cause
    assert not replace(source, fingerprint="").holds_version


# The quick test has three pages of S3.
@pytest.mark.parametrize(
    ("place_and_gateway", "objects_number", "requests_number"),
    [
        ("s3", 2_500, 14),
        *(pytest.param(kind, 10_000, 40, marks=pytest.mark.slow) for kind in KINDS),
    ],
    indirect=["place_and_gateway"],
)
def test_thousands_of_objects_are_listed_in_order_and_by_pages(
    place_and_gateway: tuple[Place, Gateway], objects_number: int, requests_number: int
) -> None:
    place, gateway = place_and_gateway
    names = [f"{number:05d}.wav" for number in range(objects_number)]
    filesystem = place.through(gateway.target).filesystem()
    contents = {f"{place.bucket}/many/{name}": b"x" for name in names}
    filesystem.pipe(contents, batch_size=64)  # gcsfs hangs with a thousand at once
    gateway.requests.clear()
    objects = list_objects(place, "many")
    assert [item.uri.rpartition("/")[2] for item in objects] == names
    assert all(item.size_bytes == 1 and ":" in item.fingerprint for item in objects)
    # A page has a thousand names (Azure: five thousand). A few requests look at the folder.
    assert len(gateway.requests) < requests_number
    gateway.requests.clear()
    options = tuple(place.options.items())
    listing = open_catalogue(f"{place.root}/many", storage_options=options)
    parts = catalogue_parts(listing)
    first = next(iter(list_part(listing, next(parts))))
    assert first.uri.endswith("/00000.wav")
    assert 2 <= len(gateway.requests) < 6  # a look at the folder, and a page
    assert not [request for request in gateway.requests if request.path.endswith(".wav")]


def test_a_directory_lists_its_files_and_its_directories(place: Place) -> None:
    filesystem = place.filesystem()
    names = ["songs/a.wav", "songs/b/c.wav", "songs/b/d/e.wav", "songs/b.wav", "songs.wav"]
    for name in names:
        filesystem.pipe_file(f"{place.bucket}/{name}", b"x")
    pages = [*directory_pages(filesystem, f"{place.bucket}/songs")]
    entries = {entry["name"].strip("/"): entry for page in pages for entry in page}
    kinds = {name.removeprefix(f"{place.bucket}/songs/"): e["type"] for name, e in entries.items()}
    assert kinds == {"a.wav": "file", "b.wav": "file", "b": "directory"}
    # The version is the one that the client itself tells of the object.
    described = filesystem.info(f"{place.bucket}/songs/a.wav")
    assert fingerprint_of(entries[f"{place.bucket}/songs/a.wav"]) == fingerprint_of(described)
    top = [entry["name"] for page in directory_pages(filesystem, place.bucket) for entry in page]
    assert {name.strip("/") for name in top} == {
        f"{place.bucket}/{n}" for n in ("songs", "songs.wav")
    }
    with pytest.raises(FileNotFoundError):
        list(directory_pages(filesystem, f"{place.bucket}/gone"))


def test_an_object_with_the_name_of_a_directory_does_not_hide_it(endpoints: dict[str, str]) -> None:
    # The test's servers for S3 and Google keep objects as files, so they cannot hold both.
    place = new_place("azure", endpoints)
    filesystem = place.filesystem()
    for name in ("songs/set1", "songs/set1/a.wav", "songs/set1-b.wav", "songs/b.wav"):
        filesystem.pipe_file(f"{place.bucket}/{name}", b"x")
    names = [item.uri.rpartition("songs/")[2] for item in list_objects(place, "songs")]
    assert sorted(names) == ["b.wav", "set1-b.wav", "set1/a.wav"]


def test_azures_folders_are_directories_and_may_be_empty(endpoints: dict[str, str]) -> None:
    place = new_place("azure", endpoints)
    filesystem = place.filesystem()
    filesystem.pipe_file(f"{place.bucket}/songs/full/a.wav", b"x")
    client = BlobServiceClient.from_connection_string(place.options["connection_string"])
    for folder, mark in (("empty", "hdi_isfolder"), ("full", "Hdi_isfolder")):
        blob = client.get_blob_client(place.bucket, f"songs/{folder}")
        blob.upload_blob(b"", metadata={mark: "true"})
    (item,) = list_objects(place, "songs")
    assert item.uri.endswith("songs/full/a.wav")


@pytest.mark.parametrize("place_and_gateway", S3_FIRST, indirect=True)
def test_an_extraction_sends_three_requests_for_a_file(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = place_and_gateway
    for number in range(6):
        write_audio(tmp_path / f"{number}.flac", song(8, RATE, number), RATE)
        content = (tmp_path / f"{number}.flac").read_bytes()
        place.filesystem().pipe_file(f"{place.bucket}/songs/{number}.flac", content)
    gateway.requests.clear()
    options = [
        f"--set=catalogue.storage_options.{name}={value}" for name, value in place.options.items()
    ]
    options.append("--set=output.min_shards=1")  # more shards would cut recordings in two
    summary = melmill_json("extract", f"{place.root}/songs", tmp_path / "out", *options)
    assert summary["rows"] == 12
    for number in range(6):
        requests = [request for request in gateway.requests if f"{number}.flac" in request.path]
        # The file's start, then the rest that the first request did not reach, then the whole file.
        assert [request.method for request in requests] == ["GET"] * 3, [
            (request.range, request.sent_bytes) for request in requests
        ]
        assert sum(request.sent_bytes for request in requests[:2]) < len(content) + 100_000
