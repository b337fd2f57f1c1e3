"""Labels and added columns in the explorer: filters, charts, pages of recordings and chunks."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import melmill
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.overview_pages import class_charts
from melmill.pipelines.explore.server import create_app
from tests.explore.conftest import open_explorer

WAITING = "The labels are being read from the shards: 0 of"


@pytest.fixture(scope="module")
def with_columns(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with added columns of recordings and of rows."""
    folder = tmp_path_factory.mktemp("added")
    shutil.copytree(dataset, folder / "set")
    opened = melmill.open(folder / "set")
    recordings = opened.recordings(columns=["recording_id", "uri"]).to_pylist()
    ids = {Path(row["uri"]).name: row["recording_id"] for row in recordings}
    values = [
        {"recording_id": ids["good.flac"], "heard": "fine <b>&", "is_live": True, "moods": ["a"]},
        {"recording_id": ids["silent.wav"], "heard": "empty", "score": 0.25, "is_live": False},
        {"recording_id": ids["broken.mp3"], "heard": "empty"},
    ]
    (folder / "values.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
    (folder / "rows.csv").write_text(
        f"recording_id,chunk_index,onsets\n{ids['good.flac']},1,17\n{ids['good.flac']},2,18\n"
    )
    melmill.add_columns(folder / "set", folder / "values.jsonl")
    melmill.add_columns(folder / "set", folder / "rows.csv", on="row")
    return folder / "set"


@pytest.fixture
def shown(with_columns: Path, tmp_path: Path) -> Iterator[Explorer]:
    with closing(open_explorer(with_columns, tmp_path)) as explorer:
        yield explorer


@pytest.fixture
def browser(shown: Explorer) -> TestClient:
    return TestClient(create_app(shown), raise_server_exceptions=False)


def names_in(browser: TestClient, query: str) -> set[str]:
    answer = browser.get(f"/export/recordings.csv?{query}")
    assert answer.status_code == 200, answer.text
    return {Path(row["uri"]).name for row in csv.DictReader(io.StringIO(answer.text))}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("added.heard=empty", {"silent.wav", "broken.mp3"}),
        ("added.score=0.2..0.3", {"silent.wav"}),
        ("added.is_live=true", {"good.flac"}),
        ("added.moods=a", {"good.flac"}),
        ("added.heard=empty&label.genre=rock", {"silent.wav"}),
    ],
)
def test_added_columns_filter_the_recordings(
    browser: TestClient, query: str, names: set[str]
) -> None:
    assert names_in(browser, query) == names


def test_added_columns_are_sorted_listed_and_exported(browser: TestClient) -> None:
    page = browser.get("/recordings?sort=-added.score&columns=added.heard%0Aadded.score").text
    assert page.index("silent.wav") < page.index("good.flac")
    assert "fine &lt;b&gt;&amp;" in page
    rows = csv.DictReader(io.StringIO(browser.get("/export/recordings.csv").text))
    heard = {Path(row["uri"]).name: row["added.heard"] for row in rows}
    assert heard["broken.mp3"] == "empty"
    assert heard["copy.mp3"] == ""


def test_each_bar_of_a_class_leads_to_as_many_recordings_as_it_says(shown: Explorer) -> None:
    table = shown.table
    drawn = list(class_charts(table, table.condition(Filter())))
    bars = [bar for chart in drawn for bar in chart.bars]
    assert {bar.name for bar in bars} == {
        *("label.genre", "added.heard", "added.is_live", "added.moods"),
    }
    for bar in bars:
        condition = table.condition(Filter(((bar.name, bar.value),)))
        assert table.count(condition)[0] == bar.recordings, bar


def test_pages_of_a_recording_and_a_chunk_show_added_values(
    shown: Explorer, browser: TestClient
) -> None:
    ((recording_id,),) = shown.table.all_rows(
        shown.table.condition(Filter((("text", "good.flac"),))), "uri", ["recording_id"]
    )
    page = browser.get(f"/recordings/{recording_id}").text
    assert "<dt>heard</dt><dd>fine &lt;b&gt;&amp;</dd>" in page
    chunks = [browser.get(f"/recordings/{recording_id}/chunks/{n}").text for n in (0, 1)]
    assert "<dt>onsets <small>added</small></dt><dd>–</dd>" in chunks[0]
    assert "<dt>onsets <small>added</small></dt><dd>17</dd>" in chunks[1]
    assert "<dt>heard <small>added</small></dt><dd>fine &lt;b&gt;&amp;</dd>" in chunks[1]


def test_chunks_hang_in_rows_by_an_added_column(browser: TestClient) -> None:
    page = browser.get("/chunks?by=added.is_live").text
    assert "a row for each added column is_live" in page
    assert "added.is_live=true" in page


def test_a_missing_file_of_added_columns_is_named(with_columns: Path, tmp_path: Path) -> None:
    shutil.copytree(with_columns, tmp_path / "set")
    for part in (tmp_path / "set" / "columns").glob("*/part-*.parquet"):
        part.unlink()
    with closing(open_explorer(tmp_path / "set", tmp_path)) as explorer:
        client = TestClient(create_app(explorer), raise_server_exceptions=False)
        assert client.get("/").status_code == 200
        answer = client.get("/recordings?added.heard=empty")
        assert answer.status_code == 500
        assert "drop the columns with melmill add-columns --drop" in answer.text


def test_pages_that_need_no_labels_do_not_wait_for_them(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melmill.pipelines.explore.recording_labels._WAIT_SECONDS", 0.01)
    release = threading.Event()
    labels = explorer.table._labels
    labels._thread.submit(release.wait)
    client = TestClient(create_app(explorer))
    for path in ("/", "/recordings", "/chunks"):
        assert client.get(path).status_code == 200
    waiting = client.get("/recordings?label.genre=jazz")
    assert waiting.status_code == 503
    assert WAITING in waiting.text
    assert '<meta http-equiv="refresh" content="1">' in waiting.text
    charts = client.get("/class-charts", headers={"Accept": "application/json"})
    assert WAITING in charts.json()["error"]
    release.set()
    monkeypatch.undo()
    assert client.get("/recordings?label.genre=jazz").status_code == 200
    assert "label.genre=jazz" in client.get("/class-charts").text


def test_an_explorer_that_is_closed_reads_no_more_labels(explorer: Explorer) -> None:
    release = threading.Event()
    labels = explorer.table._labels
    labels._thread.submit(release.wait)
    threading.Timer(0.2, release.set).start()
    labels.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        labels.require()
