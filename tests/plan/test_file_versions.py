"""Tests of what an equal fingerprint proves."""

from __future__ import annotations

import pytest

from melmill.transforms.plan.file_versions import is_settled

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("fingerprint", "settled"),
    [
        (f"mtime:{1000 * SECOND}:5", False),
        (f"mtime:{998 * SECOND}:5", False),
        (f"mtime:{997 * SECOND}:5", True),
        (f"mtime:{1000 * SECOND + 1}:5", True),
        (f"mtime:{1001 * SECOND}:5", False),
        (f"mtime:{(1000 + 86_400) * SECOND}:5", False),
        (f"mtime:{(1000 + 86_401) * SECOND}:5", True),
        (f"mtime:{100_000 * SECOND}:5", True),
        ("mtime:1970-01-01T00:16:40+00:00:5", False),
        ("mtime:1970-01-01T00:16:38+00:00:5", False),
        ("mtime:1970-01-01T00:16:30+00:00:5", True),
        ("mtime:1970-01-01T00:16:40.000001+00:00:5", True),
        (f"etag:{1000 * SECOND}:5", True),
        ("mtime:yesterday:5", True),
        ("etag:abc:5", True),
        ("generation:1000000000000:5", True),
        ("", True),
    ],
)
def test_a_fingerprint_of_a_recent_time_in_whole_seconds_is_not_settled(
    fingerprint: str, settled: bool
) -> None:
    assert is_settled(fingerprint, listed_ms=1_000_000) == settled
