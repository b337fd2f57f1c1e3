"""Licences, sources and attributions in cards and Croissant, and URIs that may be published."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import melmill
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.export_shards import list_export_shards
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.snapshot.card import past_card
from melmill.transforms.store.folders import Store
from melmill.transforms.views.claiming import claim_output
from melmill.transforms.views.exports import ExportJob, export_shard
from tests.pipeline_runs import extract_here, here, melmill_json, refresh_here
from tests.refresh.catalogues import SMALL, write_songs, write_table

FORMATS = ("tfds", "hf", "webdataset", "numpy", "arrayrecord")
CC_BY = "https://creativecommons.org/licenses/by/4.0/"
#: Split, licence, source and attribution of each song.
SONGS = (
    ("train", CC_BY, "freesound", "Ann | <b>1</b>"),
    ("train", "cc by 4.0", "freesound", "Ben"),
    ("train", "CC0-1.0", "ccMixter", None),
    ("test", None, "ccMixter", "Ann | <b>1</b>"),
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write songs of two splits, one of them in an archive and one with odd letters."""
    folder = tmp_path_factory.mktemp("private") / "audio"
    write_songs(folder / "songs", len(SONGS))
    (folder / "songs" / "1.wav").rename(folder / "songs" / "a b%20#1.wav")
    with tarfile.open(folder / "more.tar", "w") as tar:
        tar.add(folder / "songs" / "2.wav", "x/2.wav")
    names = ["songs/0.wav", "songs/a b%20#1.wav", "more.tar#x/2.wav", "songs/3.wav"]
    columns = ("split", "license", "source", "attribution")
    rows = [
        {"uri": name, **dict(zip(columns, song, strict=True))}
        for name, song in zip(names, SONGS, strict=True)
    ]
    return write_table(folder / "songs.jsonl", rows)


@pytest.fixture(scope="module")
def dataset(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance") / "set"
    root = f"catalogue.publish_root={catalogue.parent.parent}"
    formats = "output.formats=[parquet, tfrecord]"
    extract_here(catalogue, folder, *SMALL, "output.min_shards=1", formats, root)
    return folder


@pytest.fixture(scope="module")
def views(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    for form in FORMATS:
        view = Store(str(folder / form))
        export(ExportJob(Store(str(dataset)), "", view, form, "songs"), here())
    return folder


def tables_of(card: str) -> dict[str, list[list[str]]]:
    """Return the tables in a card's part about provenance, by the title of the second column."""
    tables: dict[str, list[list[str]]] = {}
    for table in re.split(r"\n\n(?=\| split)", card.partition("## Provenance")[2])[1:]:
        head, _, *rows = table.partition("\n\n")[0].strip().splitlines()
        cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
        tables[head.split("|")[2].strip()] = cells
    return tables


def test_the_card_lists_the_provenance_of_each_split(dataset: Path, views: Path) -> None:
    for folder in (dataset, views / "hf"):
        tables = tables_of((folder / "README.md").read_text("utf-8"))
        assert tables["license"] == [
            ["test", "(none)", "1", "10"],
            ["train", "CC-BY-4.0", "2", "10"],
            ["train", "CC0-1.0", "1", "8"],
        ]
        assert [row[:3] for row in tables["source"]] == [
            ["test", "ccMixter", "1"],
            ["train", "freesound", "2"],
            ["train", "ccMixter", "1"],
        ]
        names = {(row[0], row[1]) for row in tables["attribution"]}
        assert names == {
            ("test", r"Ann \| \<b\>1\</b\>"),
            ("train", r"Ann \| \<b\>1\</b\>"),
            ("train", "Ben"),
            ("train", "(none)"),
        }


def test_the_card_of_an_earlier_version_has_it_too(dataset: Path) -> None:
    opened = OpenSnapshot.current(Store(str(dataset)))
    text, _ = past_card(opened.store, opened.snapshot, opened.totals, opened.schema)
    assert "| train | CC-BY-4.0 | 2 |" in text.decode()


def test_croissant_lists_the_provenance_of_each_split(views: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    opened = mlcroissant.Dataset(jsonld=views / "hf" / "croissant.json")
    assert not opened.metadata.issues.errors
    # A recording has none, so the view has none as a whole.
    assert opened.metadata.license is None
    origins = {
        tuple(
            row[f"split-provenance/{name}"] for name in ("split", "meaning", "value", "recordings")
        )
        for row in opened.records("split-provenance")
    }
    assert {origin for origin in origins if origin[1] == "license"} == {
        ("test", "license", "", 1),
        ("train", "license", "CC-BY-4.0", 2),
        ("train", "license", "CC0-1.0", 1),
    }
    assert ("test", "attribution", "Ann | <b>1</b>", 1) in origins


def uris_in(folder: Path, form: str) -> Iterator[str]:
    """Yield the URI of each row of a view."""
    if form == "hf":
        for path in folder.glob("data/*.parquet"):
            yield from pq.read_table(path, columns=["uri"])["uri"].to_pylist()
    elif form == "numpy":
        for path in folder.glob("*.jsonl"):
            yield from (json.loads(line)["uri"] for line in path.read_text("utf-8").splitlines())
    elif form == "webdataset":
        for path in folder.glob("*.tar"):
            with tarfile.open(path) as tar:
                members: Any = (tar.extractfile(name) for name in tar if name.name.endswith("json"))
                yield from (json.load(member)["uri"] for member in members)
    elif form == "tfds":
        for path in folder.glob("*.tfrecord-*"):
            with path.open("rb") as file:
                yield from (parse_example(row)["uri"][0].decode() for row in read_records(file))
    else:
        sources = pytest.importorskip("grain.sources")
        source = sources.ArrayRecordDataSource(sorted(map(str, folder.glob("*.array_record-*"))))
        yield from (parse_example(row)["uri"][0].decode() for row in source)


@pytest.mark.parametrize("form", FORMATS)
def test_a_view_has_uris_below_the_published_folder(
    dataset: Path, views: Path, catalogue: Path, form: str
) -> None:
    rows = melmill.open(dataset).as_arrow().to_table(["uri"])["uri"].to_pylist()
    private = f"{catalogue.parent.parent}/"
    uris = list(uris_in(views / form, form))
    assert sorted(uris) == sorted(uri.removeprefix(private) for uri in rows)
    assert set(uris) == {
        "audio/songs/0.wav",
        "audio/songs/a b%20#1.wav",
        "audio/more.tar#x/2.wav",
        "audio/songs/3.wav",
    }
    # Nothing in the view names a folder of this machine.
    for path in (views / form).rglob("*"):
        assert path.is_dir() or str(catalogue.parents[2]).encode() not in path.read_bytes(), path


def test_a_view_is_named_after_the_published_catalogue(views: Path) -> None:
    title = "Log-mel spectrograms of audio/songs.jsonl"
    assert f"# {title}\n" in (views / "hf" / "README.md").read_text("utf-8")
    assert json.loads((views / "hf" / "croissant.json").read_text())["description"] == title
    assert json.loads((views / "tfds" / "dataset_info.json").read_text())["description"] == title
    card = (views / "hf" / "README.md").read_text("utf-8")
    for split in ("train", "test"):
        size = sum(path.stat().st_size for path in (views / "hf" / "data").glob(f"{split}-*"))
        assert re.search(rf"^\| {split} \|.*\| {size / 1e6:.1f} \|$", card, re.MULTILINE)


def test_a_recording_outside_the_published_folder_is_refused_first(
    dataset: Path, catalogue: Path, tmp_path: Path
) -> None:
    root = catalogue.parent / "songs"
    result = refresh_here(catalogue, dataset, f"catalogue.publish_root={root}/")
    assert result.committed  # the recipe changed, and no row
    job = ExportJob(Store(str(dataset)), "", Store(str(tmp_path / "view")), "hf", "songs")
    expected = (
        rf"catalogue\.publish_root: {root}: 1 recording of {dataset} with rows .*"
        rf"'{catalogue.parent}/more\.tar#x/2\.wav'; nothing was written"
    )
    with pytest.raises(DatasetError, match=expected):
        export(job, here())
    assert not (tmp_path / "view").exists()


def test_a_worker_writes_no_uri_outside_the_published_folder(dataset: Path, tmp_path: Path) -> None:
    store, view = Store(str(dataset)), Store(str(tmp_path / "view"))
    index = OpenSnapshot.current(store).snapshot.index
    job = ExportJob(store, index, view, "hf", "songs", publish_root="/elsewhere")
    with pytest.raises(DatasetError, match=r"is not below catalogue\.publish_root /elsewhere"):
        export_shard(next(list_export_shards(job)), job)
    assert not list((tmp_path / "view").rglob("*.parquet"))
    # An unfinished export with other URIs is not continued.
    claim_output(job)
    with pytest.raises(DatasetError, match="selection or publish_root; remove the folder"):
        claim_output(replace(job, publish_root="/"))


@pytest.mark.slow
def test_the_command_publishes_relative_uris(catalogue: Path, tmp_path: Path) -> None:
    settings = *SMALL, "output.min_shards=1", f"catalogue.publish_root={catalogue.parent}"
    options = [part for value in settings for part in ("--set", value)]
    melmill_json("extract", catalogue, tmp_path / "set", *options)
    melmill_json("export", tmp_path / "set", tmp_path / "view", "--format", "numpy")
    assert "more.tar#x/2.wav" in set(uris_in(tmp_path / "view", "numpy"))
