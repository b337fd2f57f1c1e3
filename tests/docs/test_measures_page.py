"""Test that the page about measures lists all of them, as the program describes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melmill.transforms.measures.registry import (
    CHUNK_MEASURES,
    MEASURES,
    meters_of,
    quality_text,
    quality_with,
)

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


def table_of_chunks() -> str:
    """Return the table of the measures of chunks, by meter, in Markdown."""
    lines = ["| meter | measures |", "|---|---|"]
    for meter, measures in CHUNK_MEASURES.items():
        lines.append(f"| `{meter}` | {', '.join(f'`{name}`' for name in measures)} |")
    return "\n".join(lines)


TABLES = {"measures": table, "measures of chunks": table_of_chunks}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_lists_all_measures(name):
    """To write the tables into the page: python -m tests.docs.test_measures_page."""
    (listed,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", PAGE.read_text(), re.S)
    assert listed.strip() == TABLES[name]()


if __name__ == "__main__":
    page = PAGE.read_text()
    for title, lines in TABLES.items():
        block = f"<!-- {title} -->\n\n{lines()}\n\n<!-- /{title} -->"
        old = rf"<!-- {title} -->.*<!-- /{title} -->"
        page = re.sub(old, lambda _, block=block: block, page, flags=re.S)
    PAGE.write_text(page)
