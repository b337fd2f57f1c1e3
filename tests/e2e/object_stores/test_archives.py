"""Archives on real stores: members are read by ranges, in the version that was listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.catalogue.parts import catalogue_parts, list_part, open_catalogue
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.store.objects import StoredObject
from tests.e2e.object_stores.conftest import new_place
from tests.e2e.object_stores.gateway import gateway_to
from tests.e2e.object_stores.servers import S3_FIRST, Place
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import SMALL, statuses_of, write_song
from tests.store.test_archives import CONTENT, MAKERS, tar_of
from tests.store.test_embedded import parquet_of

SONGS = {name: data * 40 for name, data in CONTENT.items()}


def members(place: Place, name: str) -> dict[str, StoredObject]:
    """Return the members of an archive as its listing describes them."""
    options = tuple(place.options.items())
    catalogue = open_catalogue(f"{place.root}/songs/{name}", storage_options=options)
    return {
        r.relative_uri.partition("#")[2]: StoredObject(
            r.uri, r.size_bytes, options, r.fingerprint, r.place
        )
        for part in catalogue_parts(catalogue)
        for r in list_part(catalogue, part)
    }


def put(place: Place, name: str, data: bytes) -> None:
    place.filesystem().pipe_file(f"{place.bucket}/songs/{name}", data)


@pytest.mark.parametrize("kind", S3_FIRST)
def test_a_member_is_one_request_of_its_own_bytes(kind: str, endpoints: dict[str, str]) -> None:
    place = new_place(kind, endpoints)
    put(place, "a.tar", tar_of(SONGS))
    with gateway_to(place.endpoint) as gateway:
        source = members(place.through(gateway.endpoint), "a.tar")["rock/a.wav"]
        gateway.requests.clear()
        with source.open(share=1.0, from_start=True) as file:
            assert file.read() == SONGS["rock/a.wav"]
        sent = [(request.method, request.sent_bytes) for request in gateway.requests]
        assert sent == [("GET", len(SONGS["rock/a.wav"]))]
        gateway.requests.clear()
        source.prefetch_header()
        with source.open() as file:
            assert file.read(100) == SONGS["rock/a.wav"][:100]
        assert len(gateway.requests) == 1


@pytest.mark.parametrize("kind", S3_FIRST)
def test_audio_in_a_parquet_file_is_one_request_of_its_bytes_or_its_page(
    kind: str, endpoints: dict[str, str]
) -> None:
    place = new_place(kind, endpoints)
    for compression in ("none", "snappy"):
        put(place, "a.parquet", parquet_of(SONGS, compression=compression))
        with gateway_to(place.endpoint) as gateway:
            source = members(place.through(gateway.endpoint), "a.parquet")["rock/a.wav"]
            gateway.requests.clear()
            with source.open(share=1.0, from_start=True) as file:
                assert file.read() == SONGS["rock/a.wav"]
            reads = [r for r in gateway.requests if r.method == "GET"]
            assert len(reads) == 1
            if compression == "none":
                assert reads[0].sent_bytes == len(SONGS["rock/a.wav"])


@pytest.mark.parametrize("kind", S3_FIRST)
def test_members_of_every_kind_of_archive_are_read(kind: str, endpoints: dict[str, str]) -> None:
    place = new_place(kind, endpoints)
    for name, make in {**MAKERS, "a.parquet": parquet_of}.items():
        put(place, name, make(SONGS))
        for member, source in members(place, name).items():
            with source.open() as file:
                assert file.read() == SONGS[member]
            assert source.stat() == (len(SONGS[member]), source.fingerprint)
            assert replace(source, place="", fingerprint="").stat() == source.stat()


@pytest.mark.parametrize("kind", S3_FIRST)
def test_a_replaced_archive_is_never_read_at_an_old_place(
    kind: str, endpoints: dict[str, str]
) -> None:
    place = new_place(kind, endpoints)
    put(place, "a.tar", tar_of(SONGS))
    source = members(place, "a.tar")["rock/a.wav"]
    put(place, "a.tar", tar_of({"new.wav": b"1", **SONGS}))
    with pytest.raises(RecordingError) as raised:
        source.open(share=1.0, from_start=True).read_at(0, 100)
    assert raised.value.cause in (Cause.CHANGED, Cause.NOT_FOUND)


@pytest.mark.slow
def test_a_refresh_on_a_store_computes_only_the_member_that_changed(
    tmp_path: Path, endpoints: dict[str, str]
) -> None:
    place = new_place("s3", endpoints)
    songs = {}
    for seed in range(3):
        write_song(tmp_path / "song.wav", seed)
        songs[f"{seed}.wav"] = (tmp_path / "song.wav").read_bytes()
    settings = [f"catalogue.storage_options.{n}={v}" for n, v in place.options.items()]
    catalogue, output = f"{place.root}/songs/*.tar", tmp_path / "dataset"
    put(place, "a.tar", tar_of(songs))
    extract_here(catalogue, output, *SMALL, *settings)
    write_song(tmp_path / "song.wav", 9)
    put(place, "a.tar", tar_of({**songs, "1.wav": (tmp_path / "song.wav").read_bytes()}, mtime=7))
    refresh = refresh_here(catalogue, output, *settings)
    assert refresh.metrics.counters["audio_ms_extracted"] == 1000
    assert set(statuses_of(output)) == {f"{place.root}/songs/a.tar#{i}.wav" for i in range(3)}
