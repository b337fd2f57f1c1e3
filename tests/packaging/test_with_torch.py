"""Run the tests that need PyTorch in a new environment: PyTorch takes 6 GB with CUDA libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runners.bare import ROOT, make_bare_environment


@pytest.mark.slow
def test_as_torch_and_its_notebook_with_torch_installed(tmp_path: Path) -> None:
    python = make_bare_environment(tmp_path / "torch")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-cache-dir"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([*install, "--quiet", "torch", "torchdata"], check=True, env=environment)
    names = ["e2e/test_torch.py", "e2e/test_added_columns.py", "examples/test_notebooks.py"]
    names += ["loading/test_torch_batches.py"]
    paths = [f"tests/{name}" for name in names]
    completed = subprocess.run(
        [python, "-m", "pytest", "-q", "-k", "torch", *paths],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    assert "skipped" not in completed.stdout
