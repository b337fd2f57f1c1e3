"""The errors of the project, grouped by who must act on them.

A :class:`RecordingError` concerns one recording: the recording becomes a row of the
failures table and the run continues. A :class:`UserError` stops the run; its message says
what to change. Any other exception is a programming error and crashes the run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melmill.transforms.core.records import AudioInfo


class Stage(StrEnum):
    """The stage of the pipeline at which a recording failed."""

    LIST = "list"
    READ = "read"
    PROBE = "probe"
    DECODE = "decode"


class Cause(StrEnum):
    """The reason why a recording failed: a word of a closed list, so failures can be counted."""

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
    OTHER_LICENSE = "other_license"
    MISSING_CHANNEL = "missing_channel"
    CHANGED = "changed_while_reading"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    DECODER_CRASH = "decoder_crash"
    MODEL_FAILED = "model_failed"


#: Causes that a retry may cure although the file did not change.
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


#: Causes for which another decode gives no more audio: a part of the file is missing or damaged.
DAMAGE_CAUSES = frozenset({Cause.TRUNCATED, Cause.CORRUPT})


class RecordingError(Exception):
    """The error for a recording that cannot be used.

    Parameters
    ----------
    stage
        Stage at which the recording failed.
    cause
        Reason, as a word of :class:`Cause`.
    message
        Sentence that describes the problem and names the values.
    audio
        Part of the recording that can still be read, if it is known. For the cause
        ``length_mismatch``: the whole stream, with its frames counted. For the causes
        ``truncated`` and ``corrupt``: the frames before the damage.
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
    """The base class of errors that the user can fix; the message says how."""


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem, one per line."""


class CatalogueError(UserError):
    """The catalogue cannot be used: it is missing, empty, or contradicts itself."""


class DatasetError(UserError):
    """The command cannot work with the dataset in its present state."""


class UnavailableError(CatalogueError, DatasetError):
    """A store does not answer at the moment; the same command may succeed later, unchanged."""


class ConflictError(DatasetError):
    """Another run committed to the dataset first; this run committed nothing."""
