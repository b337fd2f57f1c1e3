"""A recording's page in Chromium: it draws, plays, zooms, and compares with a duplicate."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from melmill.pipelines.dataset import Dataset
from tests.explore.browser import serving
from tests.pipeline_runs import extract_here
from tests.signals import song, write_audio

RATE = 44_100
#: Length of the recording: an answer of the server has less.
SECONDS = 28
#: Seconds that the copy lacks at its start.
CUT = 2


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a dataset, and the id of each of its recordings by the name of the file."""
    folder = tmp_path_factory.mktemp("heard")
    songs = folder / "songs"
    songs.mkdir()
    long = 0.5 * song(SECONDS, RATE, seed=4, channels=2)
    long[20 * RATE : 20 * RATE + 2_000] = 0.7  # the value does not change: a dropout
    write_audio(songs / "long.flac", long, RATE)
    write_audio(songs / "copy.mp3", long[CUT * RATE :], RATE)
    write_audio(songs / "gone.wav", song(3.0, RATE), RATE)
    extract_here(songs, folder / "dataset", "quality=[full, acoustic]", "dedupe=mark")
    (songs / "gone.wav").unlink()
    table = Dataset(folder / "dataset").recordings(["recording_id", "uri"])
    rows = table.to_pylist()
    return folder / "dataset", {Path(row["uri"]).name: row["recording_id"] for row in rows}


@pytest.fixture(scope="module")
def address(recordings: tuple[Path, dict[str, str]]) -> Iterator[str]:
    with serving(recordings[0], folder=recordings[0].parent) as printed:
        yield printed


class Shown:
    """A recording's page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.pictures: list[str] = []
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if "/picture?" in url and "only=waveform" not in url:
            self.pictures.append(url)

    def audio(self, expression: str, number: int = 0) -> Any:
        return self.page.evaluate(f"document.querySelectorAll('audio')[{number}].{expression}")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true; Playwright's own waiting needs eval in the page."""
        until = time.monotonic() + 30
        while not self.page.evaluate(condition):
            assert time.monotonic() < until, condition
            self.page.wait_for_timeout(50)

    def wait_until_playing_from(self, second: float, number: int = 0) -> None:
        """Wait until the sound has advanced, and check that it began at a second."""
        element = f"document.querySelectorAll('audio')[{number}]"
        self.wait(f"!{element}.paused && {element}.currentTime > {second} + 0.1")
        assert second < self.audio("currentTime", number) < second + 3

    def frames_drawn(self) -> int:
        """Return the number of frames that the last picture has."""
        start, stop = re.findall(r"(?:start|stop)=(\d+)", self.pictures[-1])
        return int(stop) - int(start)


@pytest.fixture
def open_page(
    chromium: Any, address: str, recordings: tuple[Path, dict[str, str]]
) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page, errors = context.new_page(), list[str]()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)

    def open_recording(name: str) -> Shown:
        shown = Shown(page)
        page.goto(f"{address.split('?')[0]}recordings/{recordings[1][name]}")
        page.wait_for_selector("body[data-drawn]")
        return shown

    yield open_recording
    context.close()
    assert errors == []


def test_the_sound_plays_on_beyond_the_first_answer(open_page: Any) -> None:
    shown = open_page("long.flac")
    shown.page.keyboard.press("Space")
    shown.wait_until_playing_from(0)
    expect(shown.page.locator("#play")).to_have_text("Pause")
    shown.page.keyboard.press("Space")
    shown.wait("document.querySelector('audio').paused")
    # An answer has 24 seconds: to play across its end, the browser must ask for more.
    shown.page.evaluate("document.querySelector('audio').currentTime = 23.3")
    shown.page.keyboard.press("Space")
    shown.wait("document.querySelector('audio').currentTime > 24.5")


def test_a_defect_plays_from_a_second_before(open_page: Any) -> None:
    shown = open_page("long.flac")
    button = shown.page.locator(".places button").first
    second = float(button.get_attribute("data-second"))
    assert 19.9 < second < 20.1
    button.click()
    shown.wait_until_playing_from(second - 1)
    shown.page.keyboard.press("Space")
    shown.page.evaluate("document.querySelector('audio').currentTime = 0")
    shown.page.keyboard.press("d")
    shown.wait("document.querySelector('audio').currentTime > 15")


@pytest.mark.slow
def test_a_click_plays_from_there(open_page: Any) -> None:
    shown = open_page("long.flac")
    box = shown.page.locator("#picture").bounding_box()
    left, right = 52, 10  # the margins of the figure
    place = left + (box["width"] - left - right) / 4
    shown.page.mouse.click(box["x"] + place, box["y"] + 40)
    shown.wait_until_playing_from(SECONDS / 4 - 0.1)


def test_wheel_and_keys_zoom_and_draw_finer(open_page: Any) -> None:
    shown = open_page("long.flac")
    assert len(shown.pictures) == 1
    shown.page.locator("#picture").hover()
    with shown.page.expect_response(re.compile("picture")):
        shown.page.mouse.wheel(0, -400)
    shown.wait("document.body.dataset.drawn === 'detail'")
    by_wheel = shown.frames_drawn()
    assert by_wheel < SECONDS * RATE
    with shown.page.expect_response(re.compile("picture")):
        shown.page.keyboard.press("+")
    by_key = shown.frames_drawn()
    assert by_key < 0.6 * by_wheel
    with shown.page.expect_response(re.compile("picture")):
        shown.page.keyboard.press("ArrowRight")
    assert shown.frames_drawn() == pytest.approx(by_key, abs=2)
    shown.page.keyboard.press("0")
    expect(shown.page.locator("#progress")).to_contain_text("Each column has")


def test_the_duplicate_plays_at_the_same_place(open_page: Any) -> None:
    shown = open_page("long.flac")
    shown.page.get_by_role("radio").first.check()
    shown.page.locator("#picture").hover()
    shown.page.mouse.click(*_middle(shown.page.locator("#picture")))
    shown.wait_until_playing_from(SECONDS / 2 - 0.5)
    before = shown.audio("currentTime")
    shown.page.keyboard.press("b")
    shown.wait_until_playing_from(before - CUT - 0.3, number=1)
    assert shown.audio("paused")
    here, there = shown.audio("currentTime"), shown.audio("currentTime", 1)
    shown.page.keyboard.press("a")
    shown.wait("!document.querySelectorAll('audio')[0].paused")
    again = shown.audio("currentTime")
    assert there - 0.2 < again - CUT < there + 2
    assert again > here - 0.05
    expect(shown.page.locator("#hear-a")).to_have_attribute("aria-pressed", "true")


def _middle(locator: Any) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + 40


@pytest.mark.slow
def test_channels_are_drawn_apart_and_heard_alone(open_page: Any) -> None:
    shown = open_page("long.flac")
    shown.page.get_by_role("button", name="Channels apart").click()
    expect(shown.page.locator("#picture")).to_contain_text("ch 2")
    with shown.page.expect_request(re.compile("channel=1")):
        shown.page.get_by_label("Channel").select_option(label="2")
    shown.page.locator("#picture").focus()
    shown.page.keyboard.press("Space")
    shown.wait_until_playing_from(0)
    assert "channel=1" in shown.audio("src")


def test_a_recording_whose_source_is_gone_shows_its_readings(open_page: Any) -> None:
    shown = open_page("gone.wav")
    expect(shown.page.get_by_text("the source is gone: put it back")).to_be_visible()
    expect(shown.page.locator("#readings-title")).to_be_visible()
    expect(shown.page.locator(".controls")).to_be_hidden()


@pytest.mark.slow
def test_the_keys_are_listed(open_page: Any) -> None:
    shown = open_page("gone.wav")
    shown.page.keyboard.press("?")
    expect(shown.page.get_by_role("dialog")).to_be_visible()
    shown.page.keyboard.press("Escape")
    expect(shown.page.get_by_role("dialog")).to_be_hidden()
