"""How Sphinx builds the site: ``python -m sphinx -W --keep-going -n -b html docs docs/_build``."""

import re
from pathlib import Path
from typing import Any

import melmill
from melmill.pipelines import add_columns, api, duplicates, export, extract
from melmill.pipelines.snapshots import verify
from melmill.transforms.patterns import results

ROOT = Path(__file__).parents[1]

# What api.py imports for type checkers alone: without it, autodoc cannot resolve signatures.
api.ColumnsResult = add_columns.ColumnsResult
api.Extraction = extract.Extraction
api.Duplicates = duplicates.Duplicates
api.Export = export.Export
api.Patterns = results.Patterns
api.Verification = verify.Verification

project = "melmill"
author = "melmill's maintainers"
version = release = melmill.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"melmill {release}"
html_show_copyright = False

# Headings get the anchors that GitHub gives them, so that one link works in both places.
myst_heading_anchors = 4

# Nobody makes these objects by their classes' constructors.
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Recipe", "Settings", "StorageOptions")}
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

nitpicky = True
nitpick_ignore_regex = [
    # Types of other projects: the build reaches no network, so it cannot look them up.
    ("py:class", r"(collections\.abc|numpy|pathlib|pyarrow)\..+"),
    # Types that stand in public signatures and are not public themselves.
    ("py:class", r"melmill\.pipelines\.config\.Config"),
    ("py:class", r"melmill\.pipelines\.run\.counters\.RunMetrics"),
    ("py:class", r"melmill\.pipelines\.snapshots\.open\.OpenSnapshot"),
    ("py:class", r"melmill\.transforms\.features\.spec\.FeatureSpec"),
    ("py:class", r"melmill\.transforms\.plan\.change_records\.Difference"),
    ("py:class", r"melmill\.transforms\.core\.feature_columns\.FeatureColumn"),
    ("py:class", r"melmill\.transforms\.views\.exports\.ExportJob"),
    ("py:data", r"melmill\.transforms\.index\.tables\.RECORDINGS"),
    # A parameter of RecordingError that is an attribute as well.
    ("py:attr", "audio"),
]

#: Pages of the site whose text is a file of the repository's root.
ROOT_PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def read_page(app: Any, docname: str, source: list[str]) -> None:
    """Show the root's pages, and let links to them lead there.

    In the repository these pages are stubs that link to the root's file, and links are right as
    they stand.
    """
    files = {page: name for name, page in ROOT_PAGES.items()}
    if name := files.get(f"{docname}.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        source[0] = LINK.sub(lambda link: f"]({_from_docs(link[1])}", text)
    else:
        source[0] = LINK.sub(lambda link: f"]({_page(link[1])}", source[0])


def _from_docs(target: str) -> str:
    """Turn a link that starts at the root into one that starts at docs/."""
    return target.removeprefix("docs/") if target.startswith("docs/") else _page(f"../{target}")


def _page(target: str) -> str:
    return ROOT_PAGES.get(target.removeprefix("../"), target)


def find_by_last_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve a name that a docstring uses as its module does: ``Cause`` for the class."""
    if node.get("refdomain") != "py" or "." in node["reftarget"]:
        return None
    domain = env.domains["py"]
    node["refspecific"] = True
    return domain.resolve_xref(
        *(env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, content)
    )


def setup(app: Any) -> None:
    """Tell Sphinx of the functions above."""
    app.connect("source-read", read_page)
    app.connect("missing-reference", find_by_last_name)
