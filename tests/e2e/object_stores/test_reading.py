"""How recordings are read from a store: how many requests, how many bytes, which version."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.transforms.catalogue.parts import catalogue_parts, list_part, open_catalogue
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.decode.media import open_audio, probe_audio
from melmill.transforms.probe_recordings import probe_recording
from melmill.transforms.store.objects import StoredObject
from tests.e2e.object_stores.conftest import new_place
from tests.e2e.object_stores.gateway import Gateway, gateway_to
from tests.e2e.object_stores.servers import KINDS, Place
from tests.pipeline_runs import make_test_job, melmill_json
from tests.signals import noise, song, write_audio

RATE = 44_100
LARGE_BYTES = 300 * 10**6


@pytest.fixture(scope="module")
def large() -> bytes:
    """A FLAC of 300 MB: half an hour of loud noise in stereo."""
    buffer, part = io.BytesIO(), noise(10, RATE, 0, channels=2)
    with soundfile.SoundFile(buffer, "w", RATE, 2, format="FLAC", subtype="PCM_16") as file:
        while buffer.tell() < LARGE_BYTES:
            file.write(np.roll(part, file.frames, axis=0))
    return buffer.getvalue()


@pytest.fixture(params=KINDS)
def counted(
    request: pytest.FixtureRequest, endpoints: dict[str, str]
) -> Iterator[tuple[Place, Gateway]]:
    """A bucket behind a gateway that counts."""
    place = new_place(request.param, endpoints)
    with gateway_to(place.endpoint) as gateway:
        yield place.through(gateway.endpoint), gateway


def listed(place: Place, folder: str) -> list[StoredObject]:
    """What a listing says of the objects below a folder."""
    options = tuple(place.options.items())
    catalogue = open_catalogue(f"{place.root}/{folder}", storage_options=options)
    return [
        StoredObject(found.uri, found.size_bytes, options, found.fingerprint)
        for part in catalogue_parts(catalogue)
        for found in list_part(catalogue, part)
    ]


def test_ten_seconds_of_a_large_file_take_less_than_three_times_their_bytes(
    counted: tuple[Place, Gateway], large: bytes
) -> None:
    place, gateway = counted
    place.filesystem().pipe_file(f"{place.bucket}/songs/large.flac", large)
    (source,) = listed(place, "songs")
    audio = probe_audio(source)
    start = audio.frames // 2
    needed = len(large) * 10 * RATE / audio.frames
    gateway.asked.clear()
    with open_audio(source, audio, start, start + 10 * RATE) as reader:
        blocks = list(reader.blocks(start, start + 10 * RATE, RATE))
    assert sum(map(len, blocks)) == 10 * RATE
    assert {one.method for one in gateway.asked} == {"GET"}
    assert sum(one.sent for one in gateway.asked) < 3 * needed
    assert len(gateway.asked) <= 12


def test_a_small_file_is_one_request(counted: tuple[Place, Gateway], tmp_path: Path) -> None:
    place, gateway = counted
    write_audio(tmp_path / "a.flac", song(30, RATE, 0, 2), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    place.filesystem().pipe_file(f"{place.bucket}/songs/a.flac", content)
    (source,) = listed(place, "songs")
    audio = probe_audio(source)
    gateway.asked.clear()
    with open_audio(source, audio) as reader:
        assert sum(map(len, reader.blocks(0, audio.frames, RATE))) == 30 * RATE
    assert [(one.method, one.sent) for one in gateway.asked] == [("GET", len(content))]

    gateway.asked.clear()
    source.prefetch()
    with open_audio(source, audio) as reader:
        assert sum(map(len, reader.blocks(0, audio.frames, RATE))) == 30 * RATE
    assert len(gateway.asked) == 1


def test_upcoming_headers_are_fetched_while_one_is_read(
    counted: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = counted
    for number in range(3):
        write_audio(tmp_path / f"{number}.flac", song(4, RATE, number), RATE)
        content = (tmp_path / f"{number}.flac").read_bytes()
        place.filesystem().pipe_file(f"{place.bucket}/songs/{number}.flac", content)
    settings = [f"catalogue.storage_options.{k}={v}" for k, v in place.options.items()]
    job = make_test_job(f"{place.root}/songs", tmp_path / "out", *settings)
    first, *upcoming = sorted(
        (one for part in catalogue_parts(job.catalogue) for one in list_part(job.catalogue, part)),
        key=lambda recording: recording.uri,
    )
    gateway.asked.clear()
    decoder = DecoderProcess(job.limits.memory_bytes)
    try:
        probe_recording(first, job, decoder, upcoming)
        probe_recording(upcoming[0], job, decoder, upcoming[1:])
        deadline = time.monotonic() + 10
        while not gateway.reads("2.flac") and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        decoder.close()
    # Of the last one, too, which nobody has asked for yet.
    for number in range(3):
        assert [one.method for one in gateway.reads(f"{number}.flac")] == ["GET"]


def test_another_version_is_not_read(counted: tuple[Place, Gateway], tmp_path: Path) -> None:
    place, _ = counted
    write_audio(tmp_path / "a.wav", song(3, RATE, 0), RATE)
    path = f"{place.bucket}/songs/a.wav"
    place.filesystem().pipe_file(path, (tmp_path / "a.wav").read_bytes())
    (source,) = listed(place, "songs")
    assert source.holds_version
    audio = probe_audio(source)
    write_audio(tmp_path / "a.wav", song(3, RATE, 1), RATE)
    place.filesystem().pipe_file(path, (tmp_path / "a.wav").read_bytes())
    # On Google's store another version is another object.
    cause = Cause.NOT_FOUND if place.kind == "gcs" else Cause.CHANGED
    with pytest.raises(RecordingError) as found, open_audio(source, audio) as reader:
        list(reader.blocks(0, audio.frames, RATE))
    assert found.value.cause is cause
    assert not replace(source, fingerprint="").holds_version


@pytest.mark.parametrize(
    "counted",
    ["s3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gcs", "azure"))],
    indirect=True,
)
def test_ten_thousand_objects_are_listed_in_order_and_by_pages(
    counted: tuple[Place, Gateway],
) -> None:
    place, gateway = counted
    names = [f"{number:05d}.wav" for number in range(10_000)]
    filesystem = place.through(gateway.target).filesystem()
    objects = {f"{place.bucket}/many/{name}": b"x" for name in names}
    filesystem.pipe(objects, batch_size=64)  # gcsfs hangs with a thousand at once
    gateway.asked.clear()
    found = listed(place, "many")
    assert [one.uri.rpartition("/")[2] for one in found] == names
    assert all(one.size_bytes == 1 and ":" in one.fingerprint for one in found)
    # Pages of a thousand (Azure: five thousand), and a few to see what the folder is.
    assert len(gateway.asked) < 40
    assert not [one for one in gateway.asked if one.path.endswith(".wav")]


def test_an_extraction_asks_three_times_for_a_file(
    counted: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = counted
    for number in range(6):
        write_audio(tmp_path / f"{number}.flac", song(8, RATE, number), RATE)
        content = (tmp_path / f"{number}.flac").read_bytes()
        place.filesystem().pipe_file(f"{place.bucket}/songs/{number}.flac", content)
    gateway.asked.clear()
    options = [f"--set=catalogue.storage_options.{k}={v}" for k, v in place.options.items()]
    options.append("--set=output.min_shards=1")  # more would cut recordings in two
    made = melmill_json("extract", f"{place.root}/songs", tmp_path / "out", *options)
    assert made["rows"] == 12
    for number in range(6):
        of_it = [one for one in gateway.asked if f"{number}.flac" in one.path]
        # Its start, the end that the header did not reach, and all of it.
        assert [one.method for one in of_it] == ["GET"] * 3, [(o.range, o.sent) for o in of_it]
        assert sum(one.sent for one in of_it[:2]) < len(content) + 100_000
