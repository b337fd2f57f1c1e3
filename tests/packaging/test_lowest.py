"""The lower bounds of setup.py are true: the core tests pass on exactly these versions."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runners.bare import ROOT

#: Without servers, loaders or object stores: what a plain ``pip install melmill`` is for.
CORE_TESTS = (
    *(f"tests/{one}" for one in ("beam", "catalogue", "core", "decode", "features", "index")),
    *(f"tests/{one}" for one in ("pipelines", "plan", "rows", "shards", "snapshot", "steps")),
    *("tests/store", "tests/refresh/test_refresh.py", "tests/test_doctests.py"),
)


def core_requirements() -> list[str]:
    """What setup.py names under CORE."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (value,) = (
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "CORE"
    )
    requirements: list[str] = ast.literal_eval(value)
    return requirements


def at_lower_bound(requirement: str) -> str:
    """Pin a requirement: ``a>=1,<2`` is ``a==1``."""
    found = re.fullmatch(r"([\w-]+)>=([\w.]+)(,<[\w.]+)?", requirement)
    assert found, f"{requirement} has no lower bound"
    return f"{found[1]}=={found[2]}"


def test_every_core_requirement_has_a_lower_bound() -> None:
    pins = [at_lower_bound(one) for one in core_requirements()]
    assert "apache-beam==2.77" in pins


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="no numpy 2.0 for this Python")
def test_the_core_tests_pass_on_the_lowest_versions(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "lowest"], check=True)
    python = tmp_path / "lowest/bin/python"
    pins = [at_lower_bound(one) for one in core_requirements()]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *pins, "pytest", "hypothesis"], check=True
    )
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE_TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
