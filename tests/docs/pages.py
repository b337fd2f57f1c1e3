"""Parse the documentation pages: their code blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The pages in the repository's root, then the pages in docs/.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").glob("*.md")),
]

_BLOCK = re.compile(
    r"^(?:<!--(?P<comment>(?:(?!-->).)*)-->\n)?```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code; `comment` is the HTML comment in the line before the block."""

    language: str
    code: str
    line: int
    comment: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str, language: str) -> list[Block]:
    return [block for block in _blocks(text) if block.language == language]


def _blocks(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["language"], match["code"], line, match["comment"])


def links(text: str) -> list[str]:
    """Return the links to files and headings as they are written, without links to other sites."""
    targets: list[str] = _LINK.findall(_without_blocks(text))
    return [link for link in targets if "://" not in link]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and the site make from the headings."""
    return {_slug(heading) for heading in _HEADING.findall(_without_blocks(text))}


def _without_blocks(text: str) -> str:
    return _BLOCK.sub("", text)


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
