"""What a file claims to hold, as its first bytes say it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.store.stored_file import Piece, StoredFile

#: Chunks looked at in search of the audio; real files have a dozen.
_MAX_CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class Header:
    """What a file claims to hold; ``None`` where it does not say.

    Attributes
    ----------
    container
        Lower-case name of the format; ``""`` where its first bytes are not known here.
    sample_rate_hz, channels
        As claimed, plausible or not.
    data_end
        Where the audio's last byte would be, counted from the start of the file.
    irregularity
        Why libsndfile would lose some of this file's audio; ``""`` where it would not.
    frames
        What a complete decode of an irregular file must give, where that can be known.
    missing
        Which of the claimed bytes are not there; ``""`` where all are.
    mended, pieces
        What is wrong with the file that can be mended, and the pieces that a decoder is to
        read instead of the file.
    damage
        What cannot be mended: the frames before it, and what is there.
    promised
        Frames up to the last page's position, where an Ogg stream begins at position 0.
    single_page
        Whether all audio of an Ogg stream lies in one page.
    """

    container: str = ""
    sample_rate_hz: int | None = None
    channels: int | None = None
    data_end: int | None = None
    irregularity: str = ""
    frames: int | None = None
    missing: str = ""
    mended: str = ""
    pieces: tuple[Piece, ...] = ()
    damage: tuple[int, str] | None = None
    promised: int | None = None
    single_page: bool = False


def read_exactly(file: StoredFile, at: int, size: int) -> bytes:
    """Read `size` bytes of a header at `at`.

    Raises
    ------
    RecordingError
        ``truncated``: the file ends before them.
    """
    data = file.read_at(at, size)
    if len(data) < size:
        message = f"the header needs {size} bytes at byte {at}, the file ends at {file.size_bytes}"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    return data


def unpack(file: StoredFile, at: int, form: str) -> tuple[Any, ...]:
    """Read the numbers of a header at `at`; raises like :func:`read_exactly`."""
    return struct.unpack(form, read_exactly(file, at, struct.calcsize(form)))


def chunks(
    file: StoredFile, at: int, head: str, padding: int = 1, counts_itself: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Give the name, place and size of one chunk after another."""
    head_bytes = struct.calcsize(head)
    for _ in range(_MAX_CHUNKS):
        found = file.read_at(at, head_bytes)
        if len(found) < head_bytes:
            return
        name, size = struct.unpack(head, found)
        size -= head_bytes if counts_itself else 0
        yield name, at + head_bytes, size
        if size < 0:
            return
        at += head_bytes + size + -size % padding
