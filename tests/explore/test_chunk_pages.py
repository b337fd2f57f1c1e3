"""Pages of chunks show exactly what the shards store, beside the sound of the chunk."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

import melmill
from melmill.pipelines.explore.security import Guard
from melmill.pipelines.explore.server import create_app
from melmill.transforms.rows.flac_bytes import decode_flac
from tests import signals
from tests.explore.conftest import RATE, open_explorer
from tests.explore.test_feature_pictures import pixels, viridis
from tests.onnx_models import write_encoder
from tests.pipeline_runs import extract_here
from tests.shards.test_carrying import damage_mel

SECONDS, RATE_OF_ROWS = 1, 8000
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with features of every form, rows for each channel, and labels."""
    folder = tmp_path_factory.mktemp("several")
    song = signals.song(8.5, RATE, seed=1, channels=2)
    recordings = {
        "song.flac": song,
        "copy.mp3": song,
        "stops.wav": np.concatenate([signals.song(2.0, RATE, seed=2), signals.silence(1.0, RATE)]),
        "short.wav": signals.tone(440, 0.3, RATE),
    }
    (folder / "audio").mkdir()
    for name, samples in recordings.items():
        signals.write_audio(folder / "audio" / name, samples, RATE)
    lines = [f"{name},{'ab'[i == 2]},{i}" for i, name in enumerate(recordings)]
    table = folder / "audio" / "catalogue.csv"
    table.write_text("\n".join(["uri,kind,number", *lines]) + "\n", encoding="utf-8")
    model = folder / "encoder.onnx"
    write_encoder(model, SECONDS * RATE_OF_ROWS)
    pinned = {"model": str(model), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    features = [
        {"name": "mel", "kind": "mel", "n_fft": 512, "hop_length": 256, "n_mels": 20},
        {"name": "spectrum", "kind": "stft", "n_fft": 128, "hop_length": 64},
        {"name": "samples", "kind": "waveform", "dtype": "int16", "encoding": "flac"},
        {"name": "embedding", "kind": "model", "shape": [6], **pinned},
        {"name": "quality", "kind": "measures", "meters": ["level"]},
    ]
    settings = [
        f"features={json.dumps(features)}",
        f"audio={{sample_rate_hz: {RATE_OF_ROWS}, channels: each}}",
        f"chunk={{seconds: {SECONDS}, tail: pad, short: drop}}",
        *("dedupe=drop", "quality=[full, acoustic]", "output.row_group_rows=3"),
    ]
    extract_here(table, folder / "dataset", *settings)
    return folder / "dataset"


@contextmanager
def opened(dataset: Path, folder: Path) -> Iterator[TestClient]:
    with closing(open_explorer(dataset, folder)) as explorer:
        app = Guard(create_app(explorer), 8000, "secret")
        with TestClient(app, base_url="http://127.0.0.1:8000") as browser:
            browser.cookies.set("melmill-8000", "secret")
            yield browser


@pytest.fixture
def browser(several: Path, tmp_path: Path) -> Iterator[TestClient]:
    with opened(several, tmp_path) as client:
        yield client


def rows(dataset: Path) -> list[dict[str, Any]]:
    table = melmill.open(dataset).as_arrow().to_table()
    return table.sort_by([("uri", "ascending"), ("chunk_index", "ascending")]).to_pylist()


def id_of(dataset: Path, name: str) -> str:
    recordings = melmill.open(dataset).recordings(["uri", "recording_id"]).to_pylist()
    return next(row["recording_id"] for row in recordings if Path(row["uri"]).name == name)


def address_of(row: dict[str, Any], rest: str = "", **query: object) -> str:
    channel = {"channel": row["channel"]} if "channel" in row else {}
    parameters = "&".join(f"{k}={v}" for k, v in {**channel, **query}.items())
    return f"/recordings/{row['recording_id']}/chunks/{row['chunk_index']}{rest}?{parameters}"


def cards(page: str) -> list[str]:
    return re.findall(r'class="chunk-picture" href="([^"]+)"', html.unescape(page))


@pytest.mark.parametrize("name", ["mel", "spectrum", "embedding"])
def test_the_pixels_of_a_picture_are_the_colours_of_the_stored_values(
    browser: TestClient, several: Path, name: str
) -> None:
    for row in rows(several)[::6]:
        values = np.array(row[name], np.float32)
        answer = browser.get(address_of(row, "/picture.png", feature=name, range="own"))
        drawn = pixels(answer.content)
        ordered = values.reshape(drawn.shape[:2])[::-1]
        assert np.abs(drawn - viridis(ordered, values.min(), values.max())).max() <= 1
        if values.ndim == 2:
            assert drawn.shape[:2] == values.shape


def test_the_range_of_the_dataset_is_that_of_the_training_split(
    browser: TestClient, several: Path
) -> None:
    statistics = melmill.open(several).statistics
    row = rows(several)[0]
    low, high = statistics["min"], statistics["max"]
    by_default, chosen = (
        browser.get(address_of(row, "/picture.png", **query)).content
        for query in ({}, {"range": "dataset"})
    )
    assert by_default == chosen
    expected = viridis(np.array(row["mel"], np.float32)[::-1], low, high)
    assert np.abs(pixels(chosen) - expected).max() <= 1


@pytest.mark.parametrize("name", ["mel", "samples", "embedding"])
def test_the_plot_gets_the_bits_of_the_stored_values(
    browser: TestClient, several: Path, name: str
) -> None:
    for row in rows(several)[:3]:
        stored = row[name]
        values = (
            decode_flac(stored, RATE_OF_ROWS) if name == "samples" else np.array(stored, np.float32)
        )
        answer = browser.get(address_of(row, "/values", feature=name))
        assert answer.content == values.tobytes()


def test_pictures_are_kept_by_the_browser_only_with_the_version_that_is_shown(
    browser: TestClient, several: Path
) -> None:
    row = rows(several)[0]
    kept = [
        browser.get(address_of(row, "/picture.png", **query)).headers["cache-control"]
        for query in ({}, {"version": 0}, {"version": 1})
    ]
    assert kept == ["no-store", "private, max-age=86400", "no-store"]


def test_a_recording_s_chunks_are_shown_in_order_with_each_channel(
    browser: TestClient, several: Path
) -> None:
    song = id_of(several, "song.flac")
    page = browser.get(f"/recordings/{song}/chunks").text
    places = [(index, channel) for index in range(9) for channel in range(2)]
    assert cards(page) == [f"/recordings/{song}/chunks/{i}?channel={c}" for i, c in places]
    assert "Page 1 of 1" in page


def test_a_chunk_s_page_says_where_it_is_and_what_it_holds(
    browser: TestClient, several: Path
) -> None:
    row = next(r for r in rows(several) if r["valid_samples"] == RATE_OF_ROWS // 2)
    page = browser.get(address_of(row)).text
    assert 'data-start="8.0"' in page
    assert 'data-stop="8.5"' in page
    assert f'data-channel="{row["channel"]}"' in page
    assert "4,000 of 8,000" in page
    plots = json.loads(re.search(r'id="plots">(.*?)</script>', page, re.DOTALL)[1])
    assert [plot["name"] for plot in plots] == ["mel", "spectrum", "samples", "embedding"]
    assert [plot["padding_from"] for plot in plots] == [8.5, 8.5, 8.5, None]
    assert f"{row['quality_level_rms']:.2f} dBFS".replace("-", "−") in page
    assert "Root mean square over all channels" in page


def test_a_value_that_no_meter_could_read_is_a_dash(browser: TestClient, several: Path) -> None:
    silent = next(row for row in rows(several) if row["quality_level_crest"] is None)
    page = browser.get(address_of(silent)).text
    assert 'quality_level_crest</th><td class="numeric">–</td>' in page


def test_chunks_that_do_not_exist_are_not_found(browser: TestClient, several: Path) -> None:
    song, short = id_of(several, "song.flac"), id_of(several, "short.wav")
    wrong = {
        f"/recordings/{song}/chunks/9": "this recording has the chunks 0 to 8, each of",
        f"/recordings/{song}/chunks/0?channel=2": "chunk 0 of channel 2",
        f"/recordings/{short}/chunks/0": "this recording has no chunks",
        f"/recordings/{song[::-1]}/chunks": "no such recording",
        f"/recordings/{song}/chunks/-1": "Not Found",
    }
    for address, message in wrong.items():
        answer = browser.get(address, headers=JSON)
        assert (answer.status_code, message in answer.json()["error"]) == (404, True), address


def test_wrong_parameters_are_refused_with_what_is_allowed(
    browser: TestClient, several: Path
) -> None:
    chunk = f"/recordings/{id_of(several, 'song.flac')}/chunks/0/picture.png"
    wrong = {
        f"{chunk}?feature=male": "it has: mel, spectrum, samples, embedding",
        f"{chunk}?feature=quality_level_rms": "is a number in each chunk; it has no picture",
        f"{chunk}?range=wide": "must be own or dataset",
        "/chunks?page=0": "must be a whole number from 1 on",
        "/chunks?by=genre": "must be unusual or one of label.kind, label.number, split, codec",
        "/chunks?colour=red": "the dataset has no such column",
    }
    for address, message in wrong.items():
        answer = browser.get(address, headers=JSON)
        assert (answer.status_code, message in answer.json()["error"]) == (400, True), address


def test_recordings_without_chunks_say_why(browser: TestClient, several: Path) -> None:
    short = browser.get(f"/recordings/{id_of(several, 'short.wav')}/chunks").text
    assert "shorter than a chunk" in html.unescape(short)
    kept, copy = id_of(several, "song.flac"), id_of(several, "copy.mp3")
    page = browser.get(f"/recordings/{copy}/chunks").text
    assert f'<a href="/recordings/{kept}/chunks">the chunks of the recording it copies' in page


def test_a_failed_recording_says_why_it_has_no_chunks(
    client: TestClient, ids: dict[str, str]
) -> None:
    page = client.get(f"/recordings/{ids['broken.mp3']}/chunks").text
    assert "The recording failed (unknown_format)" in page


def test_the_wall_shows_every_chunk_once(browser: TestClient, several: Path) -> None:
    page = browser.get("/chunks").text
    expected = {address_of(row) for row in rows(several)}
    assert len(cards(page)) == len(expected)
    assert set(cards(page)) == expected
    assert f"<strong>{len(expected)}</strong> chunks of <strong>2</strong> recordings" in page
    assert browser.get("/chunks").text == page


def test_a_filter_decides_whose_chunks_are_on_the_wall(browser: TestClient, several: Path) -> None:
    page = browser.get("/chunks?text=stops").text
    assert set(cards(page)) == {address_of(r) for r in rows(several) if "stops" in r["uri"]}
    page = browser.get("/chunks?text=nothing").text
    assert "No recording that passes the filter has chunks" in page


def test_a_wall_has_a_row_for_each_value_of_a_label(browser: TestClient, several: Path) -> None:
    page = browser.get("/chunks?by=label.kind&feature=spectrum").text
    strips = page.split('class="strip-head"')[1:]
    by_value = {re.search(r"label\.kind=(\w)", strip)[1]: cards(strip) for strip in strips}
    assert {value: len(chosen) for value, chosen in by_value.items()} == {"a": 8, "b": 3}
    assert {"feature=spectrum" in strip for strip in strips} == {True}
    every = [
        card
        for n in (1, 2, 3)
        for card in cards(browser.get(f"/chunks?by=label.kind&page={n}").text)
    ]
    assert len(every) == len(rows(several))
    assert set(every) == {address_of(row) for row in rows(several)}


def test_the_most_unusual_chunks_come_first_when_the_search_has_ended(
    client: TestClient, ids: dict[str, str]
) -> None:
    first = client.get("/chunks?by=unusual").text
    assert re.search(r"of \d+ chunks compared", first) or cards(first)
    wait_for_search(client, "mel")
    page = client.get("/chunks?by=unusual").text
    assert ids["silent.wav"] in cards(page)[0]
    distances = [float(text) for text in re.findall(r">([\d.]+)×</span>", page)]
    assert len(distances) == len(cards(page)) == 6
    assert distances == sorted(distances, reverse=True)
    only = client.get("/chunks?by=unusual&text=clipped").text
    assert [ids["clipped.wav"] in card for card in cards(only)] == [True]


def wait_for_search(browser: TestClient, feature: str) -> None:
    until = time.monotonic() + 20
    while not browser.get(f"/chunks/unusual-progress?feature={feature}").json()["done"]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_feature_that_cannot_be_compared_says_so_each_time(browser: TestClient) -> None:
    for _ in range(2):
        wait_for_search(browser, "samples")
        answer = browser.get("/chunks?by=unusual&feature=samples")
        assert answer.status_code == 400
        assert "spectrograms and embeddings can" in answer.text


def test_the_explorer_closes_while_a_search_runs(several: Path, tmp_path: Path) -> None:
    with opened(several, tmp_path) as browser:
        browser.get("/chunks?by=unusual")
    assert not [t for t in threading.enumerate() if t.name.startswith("unusual")]


@pytest.fixture
def damaged(several: Path, tmp_path: Path) -> tuple[Path, str]:
    """Return a copy of the dataset in which a page of mel is damaged, and the shard's name."""
    folder = tmp_path / "damaged"
    shutil.copytree(several, folder)
    shards = sorted(folder.glob("split=*/*.parquet"))
    shard = max(shards, key=lambda path: pq.read_metadata(path).num_rows)
    damage_mel(shard)
    return folder, shard.name


def test_a_damaged_page_names_the_shard_and_leaves_the_rest_readable(
    damaged: tuple[Path, str], tmp_path: Path
) -> None:
    folder, shard = damaged
    with opened(folder, tmp_path) as browser:
        pictures = [a.replace("?", "/picture.png?") for a in cards(browser.get("/chunks").text)]
        answers = [browser.get(address, headers=JSON) for address in pictures]
        failed = [answer for answer in answers if answer.status_code != 200]
        assert 1 <= len(failed) < len(answers)
        for answer in failed:
            assert answer.status_code == 500
            assert shard in answer.json()["error"]
            assert f"melmill validate {folder}" in answer.json()["error"]


def test_a_missing_shard_is_named_on_the_wall_beside_the_chunks_of_the_others(
    damaged: tuple[Path, str], tmp_path: Path
) -> None:
    folder, shard = damaged
    with opened(folder, tmp_path) as browser:
        whole = len(cards(browser.get("/chunks").text))
    next(folder.glob(f"split=*/{shard}")).unlink()
    with opened(folder, tmp_path) as browser:
        page = browser.get("/chunks").text
        assert f"{shard} is missing" in page
        assert 0 < len(cards(page)) < whole
        recording = next(
            r for r in melmill.open(folder).recordings().to_pylist() if r["rows"] == 18
        )
        answer = browser.get(f"/recordings/{recording['recording_id']}/chunks")
        assert (answer.status_code, f"{shard} is missing" in answer.text) == (500, True)


def test_a_dataset_without_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    signals.write_audio(tmp_path / "audio" / "a.wav", signals.tone(440, 1, RATE), RATE)
    extract_here(tmp_path / "audio", tmp_path / "dataset", "select=level.peak > 100")
    with opened(tmp_path / "dataset", tmp_path) as browser:
        assert "holds no chunks" in browser.get("/chunks").text
        only = id_of(tmp_path / "dataset", "a.wav")
        page = html.unescape(browser.get(f"/recordings/{only}/chunks").text)
        assert "leaves the recording out" in page
        assert "because of <code>level.peak</code>" in page


def test_features_are_shown_when_the_sources_are_gone(several: Path, tmp_path: Path) -> None:
    folder = several.parent / "audio"
    away = several.parent / "away"
    folder.rename(away)
    try:
        with opened(several, tmp_path) as browser:
            row = rows(several)[0]
            assert browser.get(address_of(row, "/picture.png")).status_code == 200
            assert browser.get(address_of(row)).status_code == 200
            sound = browser.get(f"/recordings/{row['recording_id']}/sound.wav", headers=JSON)
            assert sound.status_code != 200
            assert "the source is gone" in sound.json()["error"]
    finally:
        away.rename(folder)


def test_names_and_labels_with_html_in_them_are_escaped(client: TestClient) -> None:
    for page in ("/chunks", "/chunks?by=label.genre", "/chunks?by=unusual"):
        assert "<img src=x" not in client.get(page).text
