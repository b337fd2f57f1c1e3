"""Chromium, and the real command as a server for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return a browser; the machine's own Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        assert "CI" not in os.environ, "Chromium is not installed"
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def serving(*arguments: Path | str, folder: Path) -> Iterator[str]:
    """Start ``melmill explore`` with arguments in a folder, and yield the printed address."""
    command = [sys.executable, "-m", "melmill", "explore", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
            assert address, line + process.stdout.read()
            yield address[0]
        finally:
            process.terminate()
