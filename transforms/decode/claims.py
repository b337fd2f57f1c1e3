"""Headers: what a file claims to contain, read from its first bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.store.stored_file import Piece, StoredFile

#: Maximum number of chunks to read when searching for the audio; real files have a dozen.
_MAX_CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class Header:
    """What a file claims to contain; ``None`` where the file does not say.

    Attributes
    ----------
    container
        Lower-case name of the format; ``""`` if the first bytes are unknown.
    sample_rate_hz, channels
        Claimed sample rate and number of channels; they may be implausible.
    data_end
        Claimed end of the audio, in bytes from the start of the file.
    irregularity
        Reason why libsndfile would lose some of the audio; ``""`` if it would not.
    frames
        Number of frames that a complete decode of an irregular file must give, if known.
    missing
        Description of the claimed bytes that are missing; ``""`` if none are.
    mended
        Description of a fault that can be repaired; ``""`` if there is none.
    pieces
        Pieces of the repaired file, which a decoder reads instead of the file.
    damage
        Fault that cannot be repaired: number of frames before it, and its description.
    promised
        Number of frames up to the last page of an Ogg stream that begins at position 0.
    single_page
        Whether all audio of an Ogg stream is in one page.
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
    """Return `size` bytes of a header at byte `at`.

    Raises
    ------
    RecordingError
        ``truncated``: the file ends within these bytes.
    """
    data = file.read_at(at, size)
    if len(data) < size:
        end = file.size_bytes
        message = f"the header needs {size} bytes at byte {at}, but the file ends at byte {end}"
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, message)
    return data


def unpack(file: StoredFile, at: int, form: str) -> tuple[Any, ...]:
    """Return the numbers of a header at byte `at`; raises like :func:`read_exactly`."""
    return struct.unpack(form, read_exactly(file, at, struct.calcsize(form)))


def chunks(
    file: StoredFile, at: int, head: str, padding: int = 1, counts_itself: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the start and the size of each chunk, from byte `at` on."""
    head_bytes = struct.calcsize(head)
    for _ in range(_MAX_CHUNKS):
        data = file.read_at(at, head_bytes)
        if len(data) < head_bytes:
            return
        name, size = struct.unpack(head, data)
        size -= head_bytes if counts_itself else 0
        yield name, at + head_bytes, size
        if size < 0:
            return
        at += head_bytes + size + -size % padding
