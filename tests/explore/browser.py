"""Chromium, and the real command as a server for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
]


#: Notes when a key is pressed, and when the sound of the page's recording is first heard after it.
WATCH_SOUND = """() => {
  window.pressedAt = window.soundedAt = null;
  addEventListener("keydown", () => { window.pressedAt = performance.now(); }, true);
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    let last = null; // the first change may be the jump to the place where it starts
    const heard = () => {
      const moved = last !== null && this.currentTime > last && this.currentTime < last + 1;
      if (this.readyState > 2) last = this.currentTime;
      if (moved) window.soundedAt ??= performance.now();
      else if (!this.ended) requestAnimationFrame(heard);
    };
    requestAnimationFrame(heard);
    return play.call(this);
  };
}"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return a browser; the machine's own Chromium."""
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed (scripts/test says why)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def find_chromium() -> str | None:
    """Return the path of the machine's own Chromium; ``None`` if there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


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
