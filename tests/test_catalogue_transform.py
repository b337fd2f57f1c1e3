"""Listing a catalogue in a pipeline: every recording once, or not at all."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.plans import in_memory_pipeline, recording
from transforms.catalogue import ReadCatalogue, only_one
from transforms.errors import CatalogueError
from transforms.storage.catalogue import open_catalogue


def read(uri: Path, expected: list[str]) -> None:
    with in_memory_pipeline() as pipeline:
        recordings = pipeline | beam.Create([""]) | ReadCatalogue(open_catalogue(str(uri)))
        names = recordings | beam.Map(lambda one: one.relative_uri)
        assert_that(names, equal_to(expected))


def test_a_folder_is_listed_whole(tmp_path: Path) -> None:
    names = [f"{folder}/{i}.wav" for folder in ("a", "b", "c") for i in range(5)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    read(tmp_path, names)


def test_a_table_is_listed_whole(tmp_path: Path) -> None:
    rows = [f"{i}.wav,{i % 3}" for i in range(3_000)]
    table = tmp_path / "songs.csv"
    table.write_text("\n".join(["uri,genre", *rows]))
    read(table, [f"{i}.wav" for i in range(3_000)])


def test_a_recording_listed_twice_fails_the_run(tmp_path: Path) -> None:
    table = tmp_path / "songs.csv"
    table.write_text("uri\na.wav\nb.wav\n./a.wav\n")
    with pytest.raises(CatalogueError, match=r"line 2.*line 4.*a\.wav"):
        read(table, [])


def test_segments_of_one_file_are_recordings_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "songs.csv"
    table.write_text("uri,start,end\na.wav,0,1\na.wav,1,2\n")
    read(table, ["a.wav", "a.wav"])


def test_a_table_that_cannot_be_read_whole_fails_the_run(tmp_path: Path) -> None:
    table = tmp_path / "songs.csv"
    table.write_text("uri,start\na.wav,0\nb.wav,x\n")
    with pytest.raises(CatalogueError, match=r"line 3"):
        read(table, [])


def test_the_only_recording_goes_on() -> None:
    assert list(only_one(("a", iter([recording()])))) == [recording()]


def test_two_of_one_identity_are_both_named() -> None:
    two = [recording(origin="line 2"), recording(origin="line 9")]
    with pytest.raises(CatalogueError, match=r"line 2 and line 9 both name /songs/a\.wav"):
        list(only_one(("a", two)))
