"""The colours of the pages: text stands out from what is behind it, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melmill.pipelines import explore

STYLE = (Path(explore.__file__).parent / "assets" / "style.css").read_text(encoding="utf-8")
#: WCAG 2.1, level AA, for text of normal size.
LEAST_CONTRAST = 4.5
PAIRS = [
    *((text, behind) for text in ("text", "muted") for behind in ("page", "surface", "sunken")),
    *((text, "surface") for text in ("accent", "good", "bad", "warn")),
    *((text, "page") for text in ("accent", "good", "bad", "warn")),
    ("accent", "sunken"),
    ("text", "accent-soft"),
    ("on-accent", "accent"),
]


def palettes() -> dict[str, dict[str, str]]:
    """Return the colours by name: of light, of the system's dark, and of the chosen dark."""
    blocks = re.findall(r"(:root[^{]*)\{(.*?)\}", STYLE, re.DOTALL)
    return {
        selector.strip(): dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for selector, block in blocks
    }


def luminance(colour: str) -> float:
    """Return the relative luminance by WCAG 2.1."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_black_on_white_has_the_contrast_that_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_both_ways_to_dark_have_the_same_colours() -> None:
    light, by_system, chosen = palettes().values()
    assert by_system == chosen
    assert light.keys() == chosen.keys()
    assert light != chosen


@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
@pytest.mark.parametrize("palette", palettes())
def test_text_stands_out(palette: str, pair: tuple[str, str]) -> None:
    text, behind = (palettes()[palette][name] for name in pair)
    assert contrast(text, behind) >= LEAST_CONTRAST
