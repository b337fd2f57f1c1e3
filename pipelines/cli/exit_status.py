"""The exit statuses of the commands, and the messages of errors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from enum import IntEnum

import typer

from melmill.pipelines.run.errors import (
    LostWorkerError,
    NothingSubmittedError,
    TooManyFailuresError,
    UnknownOptionError,
)
from melmill.transforms.core.errors import ConflictError, UnavailableError, UserError


class Exit(IntEnum):
    """The exit statuses of the commands."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    CONFLICT = 4


EPILOG = """\b
Exit status:
  0  success
  1  failed; nothing was committed: run the same command again
     (of check: a recording fails; of plan: extract would end so)
  2  wrong usage, recipe, catalogue or output, or too many recordings
     failed for good: change something first
  3  committed, but some recordings failed (see the message)
  4  another run committed first: run the same command again
  130, 143  interrupted (Control-C), terminated: run the same command to continue
"""


@contextlib.contextmanager
def reporting_errors(context: typer.Context | None = None) -> Iterator[None]:
    """Print the message of an error, and exit with the status for its type.

    The context is that of a command which passes options to Beam.
    """
    try:
        yield
    except UnknownOptionError as error:
        options = context.command.params if context else []
        complain(str(error.suggest([name for option in options for name in option.opts])))
        raise typer.Exit(Exit.USAGE) from None
    except ConflictError as error:
        complain(str(error))
        raise typer.Exit(Exit.CONFLICT) from None
    except UnavailableError as error:
        complain(f"{error}; run the same command again later")
        raise typer.Exit(Exit.FAILED) from None
    except UserError as error:
        complain(str(error))
        raise typer.Exit(Exit.USAGE) from None
    except TooManyFailuresError as error:
        complain(str(error))
        raise typer.Exit(Exit.FAILED if error.may_pass else Exit.USAGE) from None
    except LostWorkerError as error:
        message = (
            f"{error} in every attempt; run the same command again to continue from the finished "
            "shards"
        )
        complain("\n".join([message, *getattr(error, "__notes__", [])]))
        raise typer.Exit(Exit.FAILED) from None
    except NothingSubmittedError as outcome:
        print(outcome)
        raise typer.Exit(Exit.SUCCESS) from None


def complain(message: str) -> None:
    """Print a message on standard error."""
    print(f"melmill: {message}", file=sys.stderr)
