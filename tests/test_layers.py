"""Check the layout: which modules a module may import, and where Beam may be imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Floor of the files directly in `transforms`, the steps of the pipeline.
STEPS = "steps"
#: Files and folders of each top folder, the lowest floor first.
FLOORS = {
    "transforms": (
        *("core", "store", "rows", "catalogue", "decode", "features", "measures"),
        *("plan", "index", "shards", "side_tables", "snapshot", "duplicates", "patterns", "views"),
        *("loading", "beam", STEPS),
    ),
    "pipelines": (
        *(
            "config",
            "sound",
            "models",
            "variants",
            "presets",
            "profiles",
            "check",
            "run",
            "estimate",
            "demo",
            "snapshots",
            "check_dataset",
            "commit",
            "extract",
            "refresh",
        ),
        *(
            "plan",
            "compact",
            "takedown",
            "add_columns",
            "export",
            "duplicates",
            "patterns",
            "added_columns",
            "loading",
            "torch_rows",
            "grain_rows",
            "tf_rows",
            "arrow_rows",
            "joined_rows",
            "dataset",
            "mixture",
            "explore",
            "report",
            "show",
            "notebook",
        ),
        *("run_records", "prometheus", "api", "layers", "cli"),
    ),
}
MODULES = [path for top in FLOORS for path in sorted((ROOT / top).rglob("*.py"))]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(parts: tuple[str, ...]) -> tuple[int, int]:
    """Return the number of a module's top folder and of its floor; ``__init__`` has floor -1."""
    top, name = parts[0], Path(parts[1]).stem
    floors = FLOORS[top]
    step = STEPS in floors and name != "__init__" and (ROOT / top / f"{name}.py").exists()
    floor = floors.index(STEPS if step else name) if step or name in floors else -1
    return list(FLOORS).index(top), floor


def places_of_imports(module: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for name in imports_of(module):
        package, *parts = name.split(".")
        if package == "melmill" and len(parts) > 1 and parts[0] in FLOORS:
            yield name, place((parts[0], parts[1]))


def test_every_file_and_folder_has_its_floor() -> None:
    for top, floors in FLOORS.items():
        existing = {p.stem for p in (ROOT / top).iterdir() if p.is_dir() or p.suffix == ".py"}
        steps = {p.stem for p in (ROOT / top).glob("*.py")} if STEPS in floors else set()
        assert existing - {"__init__", "__pycache__"} == {*floors, *steps} - {STEPS, "__init__"}


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_imports_from_its_floor_and_below(module: Path) -> None:
    own_place = place(module.relative_to(ROOT).parts)
    assert [name for name, imported in places_of_imports(module) if imported > own_place] == []
    # In the source folder these names could be imported too, but as separate modules.
    assert not [name for name in imports_of(module) if name.partition(".")[0] in FLOORS]


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_beam_is_in_steps_and_in_what_they_share(module: Path) -> None:
    own_place = place(module.relative_to(ROOT).parts)
    if own_place < place(("transforms", "beam")):
        assert not [name for name in imports_of(module) if name.startswith("apache_beam")]


def test_a_step_is_named_after_its_ptransform() -> None:
    for module in (ROOT / "transforms").glob("[a-z]*.py"):
        verb_and_noun = "".join(word.title() for word in module.stem.split("_"))
        assert f"class {verb_and_noun}(" in module.read_text(encoding="utf-8"), module


def test_parquet_is_read_without_arrows_threads() -> None:
    # store/parquet_files.py says why.
    (owner,) = ROOT.glob("transforms/store/parquet_files.py")
    threaded = re.compile(r"pq\.(ParquetFile|ParquetDataset|read_table)\b")
    for module in MODULES:
        if module != owner:
            assert not threaded.search(module.read_text(encoding="utf-8")), named(module)
