"""What a run ends with besides the errors of :mod:`melmill.transforms.core.errors`."""

from __future__ import annotations

from melmill.transforms.core.errors import UserError


class RunnerError(UserError):
    """The runner, or its workers, are not set up for this."""


class LostWorkerError(Exception):
    """A worker process of the direct runner ended in mid-run."""


class TooManyFailuresError(Exception):
    """More recordings failed than ``limits.max_failure_ratio`` allows; nothing is committed."""


class NothingSubmittedError(Exception):
    """No job runs, and none was to: the options asked for a check, or for a template."""
