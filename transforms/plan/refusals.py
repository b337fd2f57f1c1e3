"""Why a run with certain failures commits nothing, and whether the same run may succeed later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from melmill.transforms.core.errors import TRANSIENT_CAUSES
from melmill.transforms.core.naming import number_of
from melmill.transforms.plan.job import Limits


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why nothing is committed.

    Attributes
    ----------
    reason
        Sentence without its end.
    may_pass
        Whether the same run would commit if all failures passed that may pass.
    """

    reason: str
    may_pass: bool


def refusal_of(
    recordings: Mapping[str, int], failures: Mapping[str, int], rows: int, limits: Limits
) -> Refusal | None:
    """Return why nothing is committed; ``None`` if no failure and no lack of rows prevents it.

    Parameters
    ----------
    recordings
        Number of recordings by status; ``failed`` is that of failed ones.
    failures
        Number of failures by cause.
    rows
        Number of rows of all recordings.
    limits
        Limits of the run.
    """
    failed, total = recordings.get("failed", 0), sum(recordings.values())
    passing = sum(number for cause, number in failures.items() if cause in TRANSIENT_CAUSES)
    if limits.too_many_failed(failed, total):
        reason = (
            f"{failed:,} of {number_of(total, 'recording')} fail ({failed / total:.1%}), and "
            f"limits.max_failure_ratio allows {limits.max_failure_ratio:.1%}"
        )
        return Refusal(reason, not limits.too_many_failed(failed - passing, total))
    return None if rows else Refusal("no recording has any rows", bool(passing))
