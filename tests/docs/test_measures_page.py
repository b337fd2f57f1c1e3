"""Test that the page about measures lists all of them, as the program describes them."""

from __future__ import annotations

import re
from pathlib import Path

from melmill.transforms.measures.registry import MEASURES, meters_of, quality_text, quality_with

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def table() -> str:
    """Return the table of all measures in Markdown."""
    lines = ["| measure | unit | quality | meaning |", "|---|---|---|---|"]
    for measure in MEASURES.values():
        meters = meters_of([measure.name])
        quality = quality_text(quality_with("off", meters))
        kinds = {"bool": "true or false", "int": "number", "text": "text"}
        unit = measure.unit or kinds.get(measure.type, "")
        lines.append(f"| `{measure.name}` | {unit} | {quality} | {measure.meaning} |")
    return "\n".join(lines)


def test_the_page_lists_all_measures():
    """To write the table into the page: python -m tests.docs.test_measures_page."""
    (listed,) = re.findall(r"<!-- measures -->\n(.*?)\n<!-- /measures -->", PAGE.read_text(), re.S)
    assert listed.strip() == table()


if __name__ == "__main__":
    page = PAGE.read_text()
    block = f"<!-- measures -->\n\n{table()}\n\n<!-- /measures -->"
    PAGE.write_text(
        re.sub(r"<!-- measures -->.*<!-- /measures -->", lambda _: block, page, flags=re.S)
    )
