"""Check that the documentation site builds without warnings, is complete, and its links work."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import melmill
from tests.docs.pages import PAGES, ROOT, anchors, links, name_of
from tests.test_layers import FLOORS, STEPS

#: Limit of CPU time, which depends less than wall time on the machine's other work.
MAX_CPU_SECONDS = 20


def cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    options = ("-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(folder / "doctrees"))
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(folder / "html")]
    before = cpu_seconds_of_children()
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""
    assert cpu_seconds_of_children() - before < MAX_CPU_SECONDS
    return folder / "html"


def public_members(cls: type) -> list[str]:
    return [name for name, value in vars(cls).items() if name[0] != "_" and value.__doc__]


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in melmill.__all__ if f'id="melmill.{name}"' not in page] == []


@pytest.mark.parametrize("name", ["Dataset", "Audio", "Chunk"])
def test_every_method_is_in_the_reference(site: Path, name: str) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    cls = getattr(melmill, name)
    fields = getattr(cls, "__dataclass_fields__", {})
    members = [member for member in public_members(cls) if member not in fields]
    assert members
    assert [m for m in members if f'id="melmill.{name}.{m}"' not in page] == []


def test_the_site_shows_the_pages_of_the_root(site: Path) -> None:
    for name, words in (
        ("architecture", "The invariants"),
        ("contributing", "Make a release"),
        ("changelog", "Unreleased"),
    ):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        assert words in page
        assert f'href="{name}.html"' in (site / "index.html").read_text(encoding="utf-8")


def broken_links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [link for link in links(text) if not leads_somewhere(page, text, *link.split("#"))]


def leads_somewhere(page: Path, text: str, file: str, anchor: str | None = None) -> bool:
    target = page.parent / file if file else page
    if not target.exists():
        return False
    if anchor is None:
        return True
    return anchor in anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One *thing*: `two`\n[a](#one-thing-two) [b](#other) [c](page.md#other) [d](none.md)\n"
        "[e](page.md) [f](https://example.org/none)\n```\n[g](none.md)\n```\n"
    )
    assert broken_links(page) == ["#other", "page.md#other", "none.md"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES[:3], ids=name_of)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    tops = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
    paths = re.findall(rf"`((?:{tops})/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert paths
    assert [name for name in paths if not (ROOT / name).exists()] == []


def test_the_layout_has_the_order_that_is_checked() -> None:
    floors = FLOORS["transforms"]
    rows = re.findall(
        r"^\| `transforms/(\w+)/`", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE
    )
    assert tuple(rows) == tuple(name for name in floors if name != STEPS)
    assert " < ".join(floors) in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
