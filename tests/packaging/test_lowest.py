"""Check the lower bounds in setup.py: the core tests pass on exactly these versions."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runners.bare import ROOT

#: Tests that need no servers, loaders or object stores: a plain ``pip install melmill`` is enough.
CORE_TESTS = (
    *(f"tests/{folder}" for folder in ("beam", "catalogue", "core", "decode", "features", "index")),
    *(f"tests/{folder}" for folder in ("pipelines", "plan", "rows", "shards", "snapshot", "steps")),
    *("tests/store", "tests/refresh/test_refresh.py", "tests/test_doctests.py"),
)


def core_requirements() -> list[str]:
    """Return the requirements that setup.py lists in CORE."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (value,) = (
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "CORE"
    )
    requirements: list[str] = ast.literal_eval(value)
    return requirements


def at_lower_bound(requirement: str) -> str:
    """Pin a requirement to its lower bound: return ``a==1`` for ``a>=1,<2``."""
    parts = re.fullmatch(r"([\w-]+)>=([\w.]+)(,<[\w.]+)?", requirement)
    assert parts, f"{requirement} has no lower bound"
    return f"{parts[1]}=={parts[2]}"


def test_every_core_requirement_has_a_lower_bound() -> None:
    pins = [at_lower_bound(requirement) for requirement in core_requirements()]
    assert "apache-beam==2.77" in pins


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="no numpy 2.0 for this Python")
def test_the_core_tests_pass_on_the_lowest_versions(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "lowest"], check=True)
    python = tmp_path / "lowest/bin/python"
    pins = [at_lower_bound(requirement) for requirement in core_requirements()]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *pins, "pytest", "hypothesis"], check=True
    )
    completed = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE_TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-8000:]
