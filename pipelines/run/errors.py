"""Errors of a run, in addition to those of :mod:`melmill.transforms.core.errors`."""

from __future__ import annotations

from melmill.transforms.core.errors import UserError


class RunnerError(UserError):
    """The runner or its workers are not set up for melmill."""


class LostWorkerError(Exception):
    """A worker process of the direct runner ended during the run."""


class TooManyFailuresError(Exception):
    """More recordings failed than ``limits.max_failure_ratio`` allows; nothing is committed."""


class NothingSubmittedError(Exception):
    """No job was started, because the options asked only for a check or for a template."""
