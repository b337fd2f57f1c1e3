"""Run extractions for tests: fast ones in this process, real ones with the command."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.config import load_config
from melmill.pipelines.extract import Extraction, extract, make_job, resolve_catalogue
from melmill.pipelines.refresh import refresh
from melmill.pipelines.run.quick_options import QuickOptions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store


def make_test_job(catalogue: Path | str, output: Path | str, *overrides: str) -> ExtractJob:
    """Return the job that ``melmill extract`` makes from the same arguments."""
    recipe = load_config(None, overrides)
    return make_job(recipe, resolve_catalogue(str(catalogue), recipe), Store(str(output)))


def extract_here(
    catalogue: Path | str,
    output: Path | str,
    *overrides: str,
    overwrite: bool = False,
    recipe: str | None = None,
) -> Extraction:
    """Extract on Beam's in-memory runner in this process: one second instead of ten."""
    config = load_config(recipe, overrides)
    job = make_job(config, resolve_catalogue(str(catalogue), config), Store(str(output)))
    return extract(job, config.as_dict(), here(), overwrite=overwrite)


def here() -> QuickOptions:
    """Return the options for Beam's in-memory runner in this process."""
    return QuickOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])


def refresh_here(
    catalogue: Path | str, output: Path | str, *overrides: str, retry_failed: bool = False
) -> Extraction:
    """Refresh in this process, like ``melmill refresh`` without ``--recipe``."""
    recipe = recipe_of_dataset(str(output), None, list(overrides))
    job = make_job(recipe, resolve_catalogue(str(catalogue), recipe), Store(str(output)))
    job = replace(job, refresh=replace(recipe.refresh.spec(), retry_failed=retry_failed))
    return refresh(job, recipe.as_dict(), here())


def melmill(*arguments: Path | str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the real command and return its completed process."""
    command = [sys.executable, "-m", "melmill", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def melmill_json(*arguments: Path | str, status: int | Sequence[int] = 0, **kwargs: Any) -> Any:
    """Run the real command with ``--json``, check its exit status, and return its parsed output."""
    completed = melmill(*arguments, "--json", **kwargs)
    allowed = [status] if isinstance(status, int) else status
    assert completed.returncode in allowed, completed.stderr
    return json.loads(completed.stdout)


def drop_privileges() -> None:
    """Make file modes apply to root too; pass this function as `preexec_fn`."""
    if os.geteuid() == 0:
        libc, drop_from_bounding_set = ctypes.CDLL(None), 24
        for dac_override_or_read_search in (1, 2):
            libc.prctl(drop_from_bounding_set, dac_override_or_read_search, 0, 0, 0)
