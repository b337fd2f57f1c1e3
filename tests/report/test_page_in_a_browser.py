"""The page of a report in Chromium: it plays, fits a phone, and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline_runs import melmill
from tests.report.datasets import NASTY, dataset

__all__ = ["dataset"]

PLAY = """async audio => {
    await audio.play();
    const until = performance.now() + 10000;
    while (audio.currentTime < 0.3 && performance.now() < until)
        await new Promise(resolve => setTimeout(resolve, 50));
    const reached = audio.currentTime;
    audio.pause();
    return [reached, audio.duration, audio.error];
}"""
#: The contrast of WCAG 2 between the colours of an element's text and of what is behind it.
CONTRAST = """element => {
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element;
    while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0)
        behind = behind.parentElement;
    const lights = [getComputedStyle(element).color,
        behind ? getComputedStyle(behind).backgroundColor : "rgb(255,255,255)"]
        .map(colour => light(parse(colour))).sort((a, b) => b - a);
    return (lights[0] + 0.05) / (lights[1] + 0.05);
}"""


@pytest.fixture(scope="module")
def written(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report that the command wrote, over another file, as asked."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text("old")
    completed = melmill("report", dataset, "-o", path, "--top=2", "--overwrite", "--quiet")
    assert (completed.returncode, completed.stderr) == (0, "")
    return path


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 390)], ids=str)
def page(request: pytest.FixtureRequest, chromium: Any, written: Path) -> Iterator[Any]:
    """Return the open report; a test fails if the page reports an error or loads anything."""
    scheme, width = request.param
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, java_script_enabled=True
    )
    page, faults = context.new_page(), list[str]()
    page.on("console", lambda message: faults.append(message.text))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: faults.append(request.url))
    faults_allowed = (written.as_uri(), "data:")
    page.goto(written.as_uri())
    yield page
    context.close()
    assert [fault for fault in faults if not fault.startswith(faults_allowed)] == []


def test_each_excerpt_plays(page: Any) -> None:
    players = page.locator("audio")
    assert players.count() >= 5
    for number in (0, players.count() - 1):
        reached, duration, error = players.nth(number).evaluate(PLAY)
        assert error is None
        assert reached >= 0.3
        assert 2.9 < duration < 3.2


def test_pictures_are_drawn_and_described(page: Any) -> None:
    pictures = page.locator("img")
    sizes = pictures.evaluate_all("all => all.map(i => [i.naturalWidth, i.complete])")
    assert sizes == [[480, True]] * len(sizes)
    texts = pictures.evaluate_all("all => all.map(i => i.alt)")
    assert all(text.startswith("Waveform and spectrogram from second") for text in texts)
    assert any("A line marks the defect at second" in text for text in texts)


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_texts_have_contrast(page: Any) -> None:
    texts = page.locator("h1, h2, h3, p, dd, dt, td, th, a, small, .muted, .hz span, .status")
    ratios = texts.evaluate_all(f"all => all.map({CONTRAST})")
    assert len(ratios) > 50
    assert min(ratios) >= 4.5


def test_the_light_and_the_dark_page_differ(page: Any) -> None:
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(22, 22, 22)") == is_dark


def test_a_name_with_html_is_text(page: Any) -> None:
    assert page.get_by_text(NASTY).count() >= 1
    assert page.locator("img[src=x]").count() == 0
