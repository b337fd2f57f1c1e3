"""What can go wrong, told apart by who must act on it.

A :class:`RecordingError` is one recording's fault: it becomes a row of the failures
table and the run goes on. A :class:`UserError` stops the run with a message that says
what to change. Anything else is a programming error and crashes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melmill.transforms.core.records import AudioInfo


class Stage(StrEnum):
    """Where on the data's path a recording failed."""

    LIST = "list"
    READ = "read"
    PROBE = "probe"
    DECODE = "decode"


class Cause(StrEnum):
    """Why a recording failed; one word of a closed list, so that failures can be counted."""

    BAD_NAME = "bad_name"
    BAD_ROW = "bad_row"
    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    STORAGE_ERROR = "storage_error"
    EMPTY_FILE = "empty_file"
    UNKNOWN_FORMAT = "unknown_format"
    NO_AUDIO = "no_audio"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    IMPLAUSIBLE_HEADER = "implausible_header"
    LENGTH_MISMATCH = "length_mismatch"
    NON_FINITE = "non_finite"
    TOO_LONG = "too_long"
    BAD_SEGMENT = "bad_segment"
    MISSING_CHANNEL = "missing_channel"
    CHANGED = "changed_while_reading"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    DECODER_CRASH = "decoder_crash"


#: Causes that another attempt may cure without the file having changed.
TRANSIENT_CAUSES = frozenset(
    {
        Cause.NOT_FOUND,
        Cause.PERMISSION_DENIED,
        Cause.STORAGE_ERROR,
        Cause.CHANGED,
        Cause.TIMEOUT,
        Cause.OUT_OF_MEMORY,
    }
)


#: Causes of which another decode gives no more: something of the file is missing or damaged.
DAMAGE_CAUSES = frozenset({Cause.TRUNCATED, Cause.CORRUPT})


class RecordingError(Exception):
    """One recording cannot be used.

    Parameters
    ----------
    stage
        Where it failed.
    cause
        Why, as one word of :class:`Cause`.
    message
        What was seen, in a sentence that names the values.
    audio
        What can be read of the recording in spite of that, if it is known. Cause
        ``length_mismatch``: the whole stream, as counted. Causes ``truncated`` and
        ``corrupt``: the frames before the damage.
    """

    def __init__(
        self, stage: Stage, cause: Cause, message: str, audio: AudioInfo | None = None
    ) -> None:
        super().__init__(stage, cause, message, audio)
        self.stage = stage
        self.cause = cause
        self.message = message
        self.audio = audio

    @property
    def frames(self) -> int | None:
        """Number of frames in :attr:`audio`, counted from the recording's start."""
        return None if self.audio is None else self.audio.frames

    def __str__(self) -> str:
        return f"{self.stage}: {self.cause}: {self.message}"


class UserError(Exception):
    """The run cannot go on until its user changes something; the message says what."""


class ConfigError(UserError):
    """The configuration is wrong: every fault found, one a line."""


class CatalogueError(UserError):
    """The catalogue cannot be read as one: missing, empty, or contradicting itself."""


class DatasetError(UserError):
    """The dataset is not what the command needs it to be."""


class UnavailableError(CatalogueError, DatasetError):
    """A store does not answer for now: the same command may succeed later, nothing changed."""


class ConflictError(DatasetError):
    """Another run committed to the dataset meanwhile; nothing of this one was."""
