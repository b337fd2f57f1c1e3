"""Measures how soon the next flagged recording sounds after a key, in Chromium.

    python benchmarks/judging.py --recordings 20

Makes recordings with defects, extracts them, starts ``melmill explore``, and judges one after the
other with one key each. The sound is heard when the player's time moves. Needs Chromium and
playwright.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

import melmill  # noqa: E402
from tests import signals  # noqa: E402
from tests.explore.browser import ARGUMENTS, WATCH_SOUND, find_chromium, serving  # noqa: E402

FORMATS = ("flac", "mp3", "wav")


def make_recordings(folder: Path, number: int, seconds: float) -> None:
    """Write songs that are clipped after some seconds."""
    rate = 44_100
    for index in range(number):
        song = signals.song(seconds, rate, seed=index, channels=2)
        loud = np.where(np.arange(len(song))[:, None] > len(song) // 2, 8 * song, song)
        name = f"{index:03d}.{FORMATS[index % len(FORMATS)]}"
        signals.write_audio(folder / name, loud.clip(-1, 1).astype(np.float32), rate)


def judge(address: str, heard_seconds: float) -> list[float]:
    """Return the milliseconds from each key to the next sound."""
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        page = browser.new_page()
        page.goto(address)
        page.goto(address.partition("?")[0] + "verdicts")
        page.get_by_role("link", name="Judge them").click()
        page.locator("#review").wait_for()
        page.keyboard.press("Space")
        page.evaluate(WATCH_SOUND)
        left = int(page.locator("#left").inner_text())
        for _ in range(left - 1):
            page.wait_for_timeout(1000 * heard_seconds)
            page.evaluate("() => { window.soundedAt = null; }")
            page.keyboard.press("r")
            page.wait_for_function("() => window.soundedAt !== null")
            times.append(page.evaluate("() => soundedAt - pressedAt"))
        browser.close()
    return times


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="length of each recording")
    parser.add_argument("--heard", type=float, default=1.5, help="seconds before each key")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "songs").mkdir()
        make_recordings(folder / "songs", arguments.recordings, arguments.seconds)
        melmill.extract(folder / "songs", folder / "dataset", progress=False)
        with serving(folder / "dataset", folder=folder) as address:
            times = judge(address, arguments.heard)
    print(
        json.dumps(
            {
                "processor": platform.processor() or platform.machine(),
                "keys": len(times),
                "milliseconds_first": round(times[0]),
                "milliseconds_median": round(statistics.median(times)),
                "milliseconds_largest": round(max(times)),
            }
        )
    )


if __name__ == "__main__":
    main()
