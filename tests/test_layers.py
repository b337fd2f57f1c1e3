"""The rule of the layout: a folder stands on folders below it, and Beam is in steps alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Folders of ``transforms/``, the lowest first; above all of them are the steps.
FLOORS = (
    *("core", "store", "rows", "catalogue", "decode", "features"),
    *("plan", "index", "shards", "snapshot", "views", "beam"),
)
STEPS = len(FLOORS)
MODULES = sorted((ROOT / "transforms").rglob("*.py"))


def imports_of(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module: Path) -> int:
    folder = module.relative_to(ROOT / "transforms").parts[0]
    return FLOORS.index(folder) if folder in FLOORS else STEPS


def floor_of_import(name: str) -> int:
    _, _, inside = name.partition("transforms.")
    folder = inside.partition(".")[0]
    if folder in FLOORS:
        return FLOORS.index(folder)
    return STEPS if (ROOT / f"transforms/{folder}.py").exists() else 0


def test_every_folder_has_its_floor() -> None:
    folders = {path.parent.name for path in MODULES if path.parent != ROOT / "transforms"}
    assert folders == {*FLOORS}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_its_floor_and_below(module: Path) -> None:
    ours = [name for name in imports_of(module) if name.startswith("transforms.")]
    assert [name for name in ours if floor_of_import(name) > floor(module)] == []
    assert not [name for name in imports_of(module) if name.startswith("pipelines")]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_beam_is_in_steps_and_in_what_they_share(module: Path) -> None:
    if floor(module) < FLOORS.index("beam"):
        assert not [name for name in imports_of(module) if name.startswith("apache_beam")]


def test_a_step_is_named_after_its_ptransform() -> None:
    for module in (ROOT / "transforms").glob("[a-z]*.py"):
        verb_and_noun = "".join(word.title() for word in module.stem.split("_"))
        assert f"class {verb_and_noun}(" in module.read_text(encoding="utf-8"), module
