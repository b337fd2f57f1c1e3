"""The folder of the schedules, and helpers for the tests of all schedules."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cronsim import CronSim

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/schedule"


def lacking(program: str) -> None:
    """Skip the test because a program is not installed; fail if `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")


def once_a_day(schedule: str) -> bool:
    """Return whether a cron schedule starts a run every 24 hours."""
    times = CronSim(schedule, datetime(2025, 1, 1, tzinfo=UTC))
    return (next(times) - next(times)).total_seconds() == -24 * 3600
