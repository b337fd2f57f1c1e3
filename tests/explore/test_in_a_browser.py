"""The explorer in Chromium: open, filter, page, go back, reload, export, judge, and hear."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.explore.browser import WATCH_SOUND, serving
from tests.explore.conftest import NASTY
from tests.pipeline_runs import refresh_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture(scope="module")
def address(dataset: Path, folder: Path) -> Iterator[str]:
    """Return the address that the real command prints."""
    with serving(dataset, folder=folder) as printed:
        yield printed


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """Return a page that shows the overview; a test fails if its scripts do."""
    context = chromium.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors = list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    page.goto(address)
    yield page
    context.close()
    assert errors == []


def query_of(page: Any) -> str:
    return urlsplit(page.url).query


def test_a_bar_filters_and_the_address_has_the_filter(page: Any, chromium: Any) -> None:
    assert "token" not in page.url
    page.get_by_role("link", name=re.compile("clipped")).click()
    assert query_of(page) == "defect=clipping.share"
    page.get_by_role("link", name="List them").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("clipped.wav")
    page.reload()
    assert query_of(page) == "defect=clipping.share"
    expect(rows).to_have_count(1)
    page.go_back()
    page.go_back()
    assert query_of(page) == ""
    # A stranger with the same address sees nothing.
    stranger = chromium.new_context().new_page()
    assert stranger.goto(page.url).status == 403


def test_the_bars_of_labels_come_later_and_filter(page: Any) -> None:
    chart = page.get_by_role("region", name="Label genre")
    expect(chart.get_by_role("listitem")).to_have_count(2)
    chart.get_by_role("link", name=re.compile("jazz")).click()
    assert query_of(page) == "label.genre=jazz"
    expect(page.get_by_text("being read")).to_have_count(0)
    expect(chart.get_by_role("listitem")).to_have_count(1)


def test_a_column_is_chosen_sorted_and_filtered(page: Any) -> None:
    page.get_by_role("link", name="Recordings", exact=True).click()
    page.get_by_text("Filter by another column").click()
    page.get_by_label("Column").select_option("seconds")
    page.get_by_label("Value").fill("6..")
    page.get_by_role("button", name="Add").click()
    assert query_of(page) == "seconds=6.."
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Choose columns").click()
    page.get_by_label("level.rms", exact=True).check()
    page.get_by_role("button", name="Show these").click()
    page.get_by_role("link", name="level.rms").click()
    assert "sort=level.rms" in query_of(page)
    assert "seconds=6.." in query_of(page)
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("Remove the filter seconds 6..").click()
    expect(page.locator("tbody tr")).to_have_count(7)


def test_names_with_html_are_shown_as_they_are(page: Any) -> None:
    page.get_by_role("link", name="Recordings", exact=True).click()
    page.get_by_role("link", name=NASTY).click()
    expect(page.locator("h1")).to_contain_text(NASTY)


def test_the_list_is_exported_as_it_is_shown(page: Any, tmp_path: Path) -> None:
    page.goto(page.url + "recordings?codec=mp3")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="") as file:
        assert [Path(row["uri"]).name for row in csv.DictReader(file)] == ["copy.mp3"]


def test_one_key_judges_and_the_next_recording_sounds(
    page: Any, address: str, folder: Path, record_property: Any
) -> None:
    page.goto(page.url + "verdicts")
    page.get_by_role("link", name="Judge them").click()
    page.locator("#review").wait_for()
    first = page.locator("#uri").inner_text()
    page.keyboard.press("Space")  # pauses, or plays where the browser waited for a key
    page.evaluate(WATCH_SOUND)
    page.wait_for_timeout(300)
    page.keyboard.press("r")
    page.wait_for_function(OTHER, arg=first)
    page.wait_for_function("() => window.soundedAt !== null")
    record_property("milliseconds from key to sound", page.evaluate("() => soundedAt - pressedAt"))
    second = page.locator("#uri").inner_text()
    with (folder / "verdicts.csv").open(newline="") as file:
        assert [(r["uri"], r["verdict"]) for r in csv.DictReader(file)] == [(first, "reject")]

    page.keyboard.press("n")
    page.keyboard.type("hollow")
    page.keyboard.press("Enter")
    page.keyboard.press("o")
    page.wait_for_function(OTHER, arg=second)
    page.keyboard.press("u")
    page.locator("#uri", has_text=second).wait_for()
    expect(page.locator("#note")).to_have_value("hollow")
    with (folder / "verdicts.csv").open(newline="") as file:
        assert [row["uri"] for row in csv.DictReader(file)] == [first]


@pytest.mark.slow
def test_a_refreshed_dataset_is_offered_and_shown(
    chromium: Any, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset, tmp_path / "set")
    with serving("set", folder=tmp_path) as address:
        page = chromium.new_page()
        page.goto(address)
        catalogue = dataset.parent / "songs" / "catalogue.csv"
        refresh_here(catalogue, tmp_path / "set", "quality=[full, hum, acoustic]", "dedupe=off")
        page.wait_for_timeout(11_000)  # the store is asked every ten seconds
        page.reload()
        page.get_by_role("button", name="Show version 1").click()
        expect(page.get_by_text("version 1", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Show version 1")).to_have_count(0)
        page.close()


def test_fast_keys_judge_each_recording_once(page: Any, address: str, folder: Path) -> None:
    page.goto(address.partition("?")[0] + "verdicts/review?sort=uri&text=songs")
    page.locator("#review").wait_for()
    for number in range(100):  # some keys come while the next recordings are fetched
        page.keyboard.press("r" if number % 2 else "o")
        page.wait_for_timeout(10)
    expect(page.locator("#message")).to_contain_text("Nothing is left to judge here")
    with (folder / "verdicts.csv").open(newline="") as file:
        judged = [row["recording_id"] for row in csv.DictReader(file)]
    assert len(judged) == len({*judged}) == 6  # all but the one that failed
    page.goto(address.partition("?")[0] + "recordings?verdict=ok&verdict=reject")
    expect(page.locator("tbody tr")).to_have_count(6)


#: Whether the page shows another recording.
OTHER = "shown => document.getElementById('uri').textContent !== shown"
