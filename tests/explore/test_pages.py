"""The pages: overview, list, export and comparison, as a browser gets them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.overview_pages import charts
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.pipelines.explore.server import create_app
from melmill.transforms.core.errors import UnavailableError
from tests import signals
from tests.explore.conftest import RATE, make_recordings, open_explorer
from tests.pipeline_runs import extract_here, refresh_here


def names_in(client: TestClient, query: str) -> set[str]:
    """Return the names of the files that pass a filter."""
    answer = client.get(f"/export/recordings.csv?{query}")
    assert answer.status_code == 200, answer.text
    return {Path(row["uri"]).name for row in csv.DictReader(io.StringIO(answer.text))}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=failed", {"broken.mp3"}),
        ("cause=unknown_format", {"broken.mp3"}),
        ("codec=mp3", {"copy.mp3"}),
        ("text=GOOD", {"good.flac"}),
        ("defect=clipping.share", {"clipped.wav"}),
        ("defect=level.rms", {"silent.wav"}),
        ("defect=any&codec=pcm_16&seconds=5..", {"clipped.wav", "silent.wav"}),
        ("label.genre=jazz&codec=mp3&codec=pcm_16", {"copy.mp3", "clipped.wav"}),
        ("duplicate=copy", {"copy.mp3"}),
        ("duplicate=kept", {"good.flac"}),
        ("channels=2&duplicate=any", {"good.flac", "copy.mp3"}),
    ],
)
def test_the_list_is_filtered_by_what_the_index_and_the_labels_say(
    client: TestClient, query: str, names: set[str]
) -> None:
    found = names_in(client, query)
    assert found - {n for n in found if n.startswith("<")} == names


def test_each_bar_leads_to_as_many_recordings_as_it_says(explorer: Explorer) -> None:
    table = explorer.table
    bars = [bar for chart in charts(table, table.condition(Filter())) for bar in chart.bars]
    assert {"status", "defect", "cause", "duplicate", "seconds"} <= {bar.name for bar in bars}
    for bar in bars:
        condition = table.condition(Filter(((bar.name, bar.value),)))
        assert table.count(condition)[0] == bar.recordings, bar


def test_the_list_is_sorted_and_paged(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.pipelines.explore.list_pages.PAGE", 2)
    pages = [client.get(f"/recordings?sort=-seconds&page={page}").text for page in (1, 2, 3, 4)]
    assert "good.flac" in pages[0]
    assert "copy.mp3" in pages[0]
    assert "other.ogg" in pages[1]
    assert "broken.mp3" in pages[3]
    assert "Page 2 of 4" in pages[1]


def test_the_exported_catalogue_is_one_that_extract_takes(
    client: TestClient, tmp_path: Path
) -> None:
    catalogue = tmp_path / "jazz.jsonl"
    catalogue.write_text(client.get("/export/catalogue.jsonl?label.genre=jazz&codec=mp3").text)
    extract_here(catalogue, tmp_path / "jazz", "chunk.seconds=2")
    rows = polars.read_delta(str(tmp_path / "jazz"))
    assert rows["genre"].unique().to_list() == ["jazz"]
    assert {Path(uri).name for uri in rows["uri"]} == {"copy.mp3"}


@pytest.mark.parametrize(
    ("address", "status", "message"),
    [
        ("/recordings?codek=mp3", 400, "did you mean codec"),
        ("/recordings?seconds=long", 400, "must be a number, a range"),
        ("/recordings?page=0", 400, "must be a whole number"),
        ("/recordings?sort=nothing", 400, "no such column"),
        ("/recordings?columns=nothing", 400, "no such column"),
        ("/?defect=nothing", 400, "must be any or a measure that the profile"),
        ("/?duplicate=maybe", 400, "must be one of any, copy, kept"),
        ("/compare?before=7", 400, "must be a version that is kept"),
        ("/recordings?page=" + "9" * 5000, 400, "must be a whole number"),
        ("/recordings?" + "codec=x&" * 201, 400, "has 201 terms: at most 200"),
        ("/export/%C3%A9.csv", 404, "Not Found"),
        ("/export/catalogue.jsonl", 400, "labels are only in rows: add the filter rows=1.."),
        ("/nothing", 404, "Not Found"),
        ("/verdicts/review?codek=mp3", 400, "did you mean codec"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(
    client: TestClient, address: str, status: int, message: str
) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert message in answer.text


def test_the_catalogue_keeps_labels_of_all_types(tmp_path: Path) -> None:
    signals.write_audio(tmp_path / "a.wav", signals.song(3.0, RATE), RATE)
    line = {"uri": "a.wav", "tags": ["x", "y"], "a b": "=1", "year": 1999}
    (tmp_path / "all.jsonl").write_text(json.dumps(line))
    extract_here(tmp_path / "all.jsonl", tmp_path / "set", "chunk.seconds=1")
    with closing(open_explorer(tmp_path / "set", tmp_path)) as explorer:
        client = TestClient(create_app(explorer))
        written = json.loads(client.get("/export/catalogue.jsonl").text)
        assert written == {**line, "uri": str(tmp_path / "a.wav")}
        assert "'=1" in client.get("/export/recordings.csv").text
        shown = client.get("/recordings", params={"columns": "label.a b\nlabel.tags"}).text
        assert "x, y" in shown


def test_a_catalogue_without_the_places_of_segments_is_refused(tmp_path: Path) -> None:
    explorer = explore_segments(tmp_path)
    with closing(explorer):
        answer = TestClient(create_app(explorer)).get("/export/catalogue.jsonl")
        assert answer.status_code == 400
        assert "2 of these recordings are segments of files" in answer.text


def test_places_of_a_segment_are_those_of_its_file(tmp_path: Path) -> None:
    with closing(explore_segments(tmp_path)) as explorer:
        client = TestClient(create_app(explorer))
        flagged = client.get("/verdicts/queue?defect=gaps.count").json()["recordings"]
        (recording,) = flagged
        assert recording["segment"] == [6.0, 12.0]
        assert recording["seconds"] == pytest.approx(12.0)
        (finding,) = recording["findings"]
        assert finding["second"] == pytest.approx(9.0, abs=0.05)
        page = client.get(f"/recordings/{recording['recording_id']}").text
        assert "from 0:06" in page
        assert '"second": 9.0' in page or '"second": 8.9' in page


def explore_segments(folder: Path) -> Explorer:
    """Return the explorer of two segments of 6 s; a dropout is 9 s after their file begins."""
    samples = signals.song(12.0, RATE, seed=5) + signals.noise(12.0, RATE, amplitude=0.05)
    samples[9 * RATE : 9 * RATE + RATE // 5] = 0
    signals.write_audio(folder / "long.wav", samples.astype(np.float32), RATE)
    (folder / "segments.csv").write_text("uri,start,end\nlong.wav,0,6\nlong.wav,6,12\n")
    extract_here(folder / "segments.csv", folder / "set", "quality=full", "chunk.seconds=1")
    return open_explorer(folder / "set", folder)


def test_an_index_of_an_older_version_is_shown(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "set")
    (part,) = (tmp_path / "set" / "index").glob("*/recordings-00000.parquet")
    lacking = ["measures", "duplicate_of", "split_unit", "deselected_by", "tags", "labels_digest"]
    pq.write_table(pq.read_table(part).drop_columns(lacking), part)
    with closing(open_explorer(tmp_path / "set", tmp_path)) as explorer:
        client = TestClient(create_app(explorer))
        (copy,) = explorer.table.page(explorer.table.condition(Filter()), "-seconds", ["uri"], 0, 1)
        paths = ["/", "/recordings?text=good", "/chunks", "/compare", "/verdicts"]
        for path in [*paths, f"/recordings/{copy['recording_id']}"]:
            assert client.get(path).status_code == 200, path
        assert "--set quality=full" in client.get("/").text


def test_the_pages_go_on_without_the_store(
    explorer: Explorer, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: object) -> None:
        raise UnavailableError("the store does not answer")

    monkeypatch.setattr("melmill.pipelines.explore.explorer.read_snapshot", fail)
    assert client.get("/recordings").status_code == 200
    assert client.get("/recordings?codek=1").status_code == 400


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_damaged_index_is_named(dataset: Path, tmp_path: Path, is_stored: bool) -> None:
    shutil.copytree(dataset, tmp_path / "set")
    (part,) = (tmp_path / "set" / "index").glob("*/recordings-00000.parquet")
    with closing(open_explorer(tmp_path / "set", tmp_path)) as explorer:
        if not is_stored:
            explorer.table.database.close()
            explorer.table = RecordingTable(explorer.opened, explorer.profile, explorer.folder)
        content = bytearray(part.read_bytes())
        content[8:-2000] = bytes(len(content) - 2008)
        part.write_bytes(content)
        client = TestClient(create_app(explorer), raise_server_exceptions=False)
        answer = client.get(f"/recordings/{explorer.opened.snapshot.index}")
        assert answer.status_code == 500
        assert "is missing or damaged" in answer.text
        assert "melmill validate" in answer.text


def test_a_page_beyond_the_last_leads_back(client: TestClient) -> None:
    assert "Go to the first" in client.get("/recordings?page=99").text


def test_a_dataset_without_measures_offers_to_compute_them(tmp_path: Path) -> None:
    catalogue = make_recordings(tmp_path / "songs")
    settings = ["quality=off", "limits.max_failure_ratio=0.5", "chunk.seconds=2"]
    extract_here(catalogue, tmp_path / "plain", *settings)
    explorer = open_explorer(tmp_path / "plain", tmp_path)
    found = {c.heading: c for c in charts(explorer.table, explorer.table.condition(Filter()))}
    assert "--set quality=full" in found["Defects (training)"].note
    # The action that the page suggests:
    refresh_here(catalogue, tmp_path / "plain", *settings[1:], "quality=full")
    assert explorer.newest() > explorer.table.version
    explorer.open_newest()
    found = {c.heading: c for c in charts(explorer.table, explorer.table.condition(Filter()))}
    assert {bar.value for bar in found["Defects (training)"].bars} >= {"clipping.share"}
    explorer.close()
