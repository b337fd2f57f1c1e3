"""A Python environment with melmill's requirements but without melmill; a copy of our source."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[3]


def copy_source(folder: Path) -> Path:
    """Copy our source folder, because a build leaves files in it; return its ``setup.py``."""
    for name in ("melmill", "configs", "pipelines", "transforms"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted, symlinks=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder / "setup.py"


def make_bare_environment(folder: Path) -> Path:
    """Make an environment with this interpreter's packages; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # The .pth files in that folder have no effect here. So this checkout, which a .pth file
    # installs there, is missing.
    packages = folder / f"lib/{version}/site-packages/packages.pth"
    packages.write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin/python"
    imports = "import apache_beam, melmill"
    result = subprocess.run([python, "-c", imports], capture_output=True, cwd=folder)
    assert b"No module named 'melmill'" in result.stderr
    return python
