"""Where the schedules are, and what all of them have in common."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cronsim import CronSim

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/schedule"


def lacking(what: str) -> None:
    """Skip, but where the tests are to be complete."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def once_a_day(schedule: str) -> bool:
    times = CronSim(schedule, datetime(2025, 1, 1, tzinfo=UTC))
    return (next(times) - next(times)).total_seconds() == -24 * 3600
