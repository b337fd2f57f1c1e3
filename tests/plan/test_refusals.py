"""When a run commits nothing, and whether the same run may commit later."""

from __future__ import annotations

import pytest

from melmill.transforms.plan.job import Limits
from melmill.transforms.plan.refusals import refusal_of

LIMITS = Limits(timeout_s=1, max_seconds=1, memory_bytes=1, max_failure_ratio=0.25)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ({}, None),
        ({"corrupt": 1, "not_found": 1}, None),
        ({"not_found": 8}, True),
        ({"corrupt": 8}, False),
        ({"corrupt": 2, "not_found": 6}, True),  # enough if those of the store pass
        ({"corrupt": 3, "not_found": 5}, False),
    ],
)
def test_a_refusal_may_pass_if_enough_of_its_failures_may(
    failures: dict[str, int], expected: bool | None
) -> None:
    failed = sum(failures.values())
    refusal = refusal_of({"failed": failed, "ok": 8 - failed}, failures, 8 - failed, LIMITS)
    assert (refusal and refusal.may_pass) is expected
    if refusal:
        share = f"{failed / 8:.1%}"
        assert refusal.reason.startswith(f"{failed} of 8 recordings fail ({share}), and limits.")


@pytest.mark.parametrize(
    ("failures", "skipped", "may_pass"),
    [({}, 3, False), ({"corrupt": 1}, 7, False), ({"timeout": 1}, 7, True), ({}, 0, False)],
)
def test_a_run_without_rows_may_pass_if_a_failed_recording_may(
    failures: dict[str, int], skipped: int, may_pass: bool
) -> None:
    recordings = {"failed": sum(failures.values()), "skipped": skipped}
    refusal = refusal_of(recordings, failures, 0, LIMITS)
    assert refusal is not None
    assert (refusal.reason, refusal.may_pass) == ("no recording has any rows", may_pass)
