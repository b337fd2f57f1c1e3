"""Errors of a run, in addition to those of :mod:`melmill.transforms.core.errors`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from melmill.transforms.core.errors import ConfigError, UserError


class RunnerError(UserError):
    """The runner or its workers are not set up for melmill."""


class LostWorkerError(Exception):
    """A worker process of the direct runner ended during the run."""


class TooManyFailuresError(Exception):
    """More recordings failed than ``limits.max_failure_ratio`` allows; nothing is committed.

    Parameters
    ----------
    message
        Text for people.
    may_pass
        Whether the same command may commit later, because enough of the failures may pass.
    """

    def __init__(self, message: str, *, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class NothingSubmittedError(Exception):
    """No job was started, because the options asked only for a check or for a template."""


class UnknownOptionError(ConfigError):
    """Neither melmill nor Beam knows an option."""

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        """Take the option and what follows it, and suggest the known option that is most alike."""
        self._unknown, self._known = unknown, known
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        super().__init__(f"{' '.join(unknown)}: neither melmill nor Beam knows this option{hint}")

    def suggest(self, options: Sequence[str]) -> UnknownOptionError:
        """Return the error with a suggestion from more options."""
        return UnknownOptionError(self._unknown, [*options, *self._known])
