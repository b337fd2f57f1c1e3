"""Chunks in Chromium: go through a wall by keyboard, open a chunk, read its values, hear it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

import melmill
from tests.explore.browser import serving

#: Records where the sound is, every 20 ms, until it stops; the first number is that of the start.
_RECORD = """button => new Promise(resolve => {
  const audio = document.getElementById("sound"), places = [];
  const timer = setInterval(() => {
    const isPlaying = button.getAttribute("aria-pressed") === "true";
    if (isPlaying && !audio.seeking && audio.readyState > 1) places.push(audio.currentTime);
    if (!isPlaying && places.length) { clearInterval(timer); resolve(places); }
  }, 20);
})"""

#: Returns the number of the picture that is straight below another.
_BELOW = """picture => {
  const {left, bottom} = picture.getBoundingClientRect();
  const all = [...document.querySelectorAll(".chunk-picture")];
  return all.findIndex(other => {
    const place = other.getBoundingClientRect();
    return place.left === left && place.top > bottom;
  });
}"""


@pytest.fixture(scope="module")
def address(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(dataset, folder=tmp_path_factory.mktemp("chunks")) as printed:
        yield printed


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """Return a page that shows the wall; a test fails if its scripts do."""
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors = list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: _is_script_error(line) and errors.append(line.text))
    page.goto(address)
    page.get_by_role("link", name="Chunks").click()
    page.wait_for_url("**/chunks")
    yield page
    context.close()
    assert errors == []


def _is_script_error(line: Any) -> bool:
    return line.type == "error" and not line.text.startswith("Failed to load resource")


def assert_heard(places: list[float], start: float, stop: float) -> None:
    """Check that the sound went on from the start to the end, and not further."""
    assert start - 0.05 <= places[0] < start + 0.5
    assert stop - 0.2 < places[-1] <= stop + 0.1
    assert np.all(np.diff(places) >= 0)
    assert len(set(places)) > 10


def test_from_a_wall_to_a_chunk_and_its_sound_by_keyboard(page: Any, dataset: Path) -> None:
    pictures = page.locator(".chunk-picture")
    page.keyboard.press("ArrowRight")
    expect(pictures.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(pictures.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = pictures.nth(1).evaluate(_BELOW)
    expect(pictures.nth(below)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(pictures.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(pictures.last).to_be_focused()
    page.keyboard.press("Home")
    button = page.locator(".chunk .play").first
    start, stop = (float(button.get_attribute(f"data-{name}")) for name in ("start", "stop"))
    page.keyboard.press(" ")
    assert_heard(button.evaluate(_RECORD), start, stop)
    chunk = pictures.first.get_attribute("href")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(chunk) + "$"))
    expect(page.locator(".drawing .heatmaplayer image")).to_have_count(1)
    page.keyboard.press(" ")
    assert_heard(page.locator("#play").evaluate(_RECORD), start, stop)


@pytest.mark.slow
def test_the_arrow_keys_read_the_stored_values_of_a_plot(page: Any, dataset: Path) -> None:
    (recording,) = [
        row
        for row in melmill.open(dataset).recordings(["uri", "recording_id"]).to_pylist()
        if row["uri"].endswith("clipped.wav")
    ]
    rows = melmill.open(dataset).as_arrow().to_table(["recording_id", "chunk_index", "mel"])
    (stored,) = [
        row["mel"]
        for row in rows.to_pylist()
        if (row["recording_id"], row["chunk_index"]) == (recording["recording_id"], 1)
    ]
    page.goto(page.url.replace("/chunks", f"/recordings/{recording['recording_id']}/chunks/1"))
    drawing = page.locator(".drawing")
    expect(drawing.locator(".heatmaplayer image")).to_have_count(1)
    drawing.focus()
    for key in ("Shift+ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    readout = page.locator(".readout")
    expect(readout).to_contain_text("band 11 (")
    # The middle of frame 2 is 2 hops of 512 samples after the start at 2 s.
    expect(readout).to_contain_text(f"frame 2 at {2 + 2 * 512 / 22050:.4f} s")
    shown = float(readout.inner_text().split()[0].replace("−", "-"))
    assert np.float32(shown) == np.float32(stored[11][2])
    drawing.hover(position={"x": 300, "y": 100})
    expect(readout).not_to_contain_text("band 11 (")
    page.locator("#theme").click()
    page.locator(".facts").click()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(r"/chunks/0$"))


def test_the_search_for_unusual_chunks_ends_in_a_wall(page: Any) -> None:
    page.locator("select[name=by]").select_option("unusual")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".distance").first).to_be_visible()
    expect(page.locator("select[name=by]")).to_have_value("unusual")


def test_a_chunk_whose_source_is_gone_is_drawn_and_says_why_it_is_silent(
    page: Any, dataset: Path
) -> None:
    songs, away = dataset.parent / "songs", dataset.parent / "away"
    songs.rename(away)
    try:
        page.locator(".chunk .play").first.click()
        problem = page.locator(".chunk .problem").first
        expect(problem).to_contain_text("No sound")
        expect(problem).to_contain_text("the source is gone")
        page.locator(".chunk-picture").first.click()
        expect(page.locator(".drawing .heatmaplayer image")).to_have_count(1)
        page.locator("#play").click()
        expect(page.locator("#problem")).to_contain_text("the source is gone")
        expect(page.locator("#play")).to_have_attribute("aria-pressed", "false")
    finally:
        away.rename(songs)


@pytest.mark.slow
def test_a_chunk_that_begins_in_one_part_of_the_sound_goes_on_in_the_next(page: Any) -> None:
    """The parts of an hour are replaced by parts of a second, as if the recording were short."""
    part = io.BytesIO()
    soundfile.write(part, np.zeros(8000), 8000, format="WAV")
    asked = list[str]()

    def answer(route: Any) -> None:
        asked.append(route.request.url.partition("?")[2])
        route.fulfill(body=part.getvalue(), content_type="audio/wav")

    page.route("**/sound.wav*", answer)
    states = page.evaluate(
        """async () => {
          const {ChunkPlayer} = await import("/assets/chunk_player.js");
          const button = document.createElement("button");
          Object.assign(button.dataset, {recording: "x", start: 0.6, stop: 1.4, channel: 1});
          const audio = document.createElement("audio");
          return new Promise((resolve, reject) => {
            const seconds = [];
            const changed = () => player.button === null && resolve(seconds);
            const player = new ChunkPlayer(audio, 1, changed, (_, why) => reject(why));
            player.play(button);
            const note = () => player.button && (seconds.push(player.second), setTimeout(note, 20));
            note();
          });
        }"""
    )
    assert asked == ["part=0&channel=1", "part=1&channel=1"]
    assert 1.3 < states[-1] < 1.5
