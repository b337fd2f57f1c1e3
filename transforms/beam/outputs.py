"""Names of tagged outputs that several steps have."""

from __future__ import annotations

FAILURES = "failures"
