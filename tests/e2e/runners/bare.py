"""A Python environment with all that melmill needs, and no melmill; its source, to be staged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[3]


def copy_source(folder: Path) -> Path:
    """Copy our source folder, since building leaves files in it; gives its ``setup.py``."""
    for name in ("melmill", "configs", "pipelines", "transforms"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted, symlinks=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder / "setup.py"


def make_bare_environment(folder: Path) -> Path:
    """Make it of this interpreter's packages; gives its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # What is installed in there by a .pth file, as this checkout is, does not come along.
    packages = folder / f"lib/{version}/site-packages/packages.pth"
    packages.write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin/python"
    wanted = "import apache_beam, melmill"
    lacks = subprocess.run([python, "-c", wanted], capture_output=True, cwd=folder)
    assert b"No module named 'melmill'" in lacks.stderr
    return python
