"""An open stored object, as decoders in C need it: buffered, seekable, and never raising."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

from melmill.transforms.store.retries import patiently

#: Read ahead of a decoder, which asks for a few hundred bytes at a time.
BUFFER_BYTES = 2**16
#: The largest position that a file can have.
_MAX_POSITION = 2**63 - 1

#: A part of a spliced file: a range ``(start, end)`` of the stored file, or bytes of our own.
Piece = tuple[int, int] | bytes


class StoredFile:
    """A file that keeps what goes wrong below it.

    A decoder calls back into this object and loses the exceptions of it: soundfile takes
    a failed read for the end of the file and returns half the audio without a word. So
    reads come back empty after an error, and :meth:`raise_kept` raises it once the
    decoder's call is over.

    The position is counted here because FLAC asks for it at every read, and the standard
    library's buffer would ask the operating system each time.

    Parameters
    ----------
    file
        An unbuffered binary file, or one of fsspec's.

    Attributes
    ----------
    size_bytes
        The object's size when it was opened.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        raw = _PatientFile(file)
        self.size_bytes = raw.size_bytes
        self._buffered = io.BufferedReader(raw, BUFFER_BYTES)
        self._position = 0
        self._kept: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the object."""
        self._buffered.close()

    def raise_kept(self) -> None:
        """Raise what went wrong in the reads so far, if anything did."""
        if self._kept is not None:
            raise self._kept

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; 0 at the end of the file and after an error."""
        if self._kept is not None:
            return 0
        try:
            count = self._buffered.readinto(buffer)
        except BaseException as error:  # noqa: BLE001 - raise_kept raises it, of whatever kind
            self._kept = error
            return 0
        self._position += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; none at the end of the file and after an error."""
        if self._kept is not None:
            return b""
        # A decoder asks for as much as a damaged file says; memory for it is taken beforehand.
        left = max(0, self.size_bytes - self._position)
        try:
            data = self._buffered.read(min(size, left) if size >= 0 else left)
        except BaseException as error:  # noqa: BLE001 - raise_kept raises it, of whatever kind
            self._kept = error
            return b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; gives the new position, or -1 where a damaged file leads to no position."""
        target = offset + (0, self._position, self.size_bytes)[whence]
        if not 0 <= target <= _MAX_POSITION:
            return -1
        self._buffered.seek(target)
        self._position = target
        return target

    def tell(self) -> int:
        """Give the position in bytes."""
        return self._position

    def write(self, data: object) -> int:
        """Refuse: soundfile wants the method to be there and never calls it when reading."""
        raise io.UnsupportedOperation("not writable")

    def lend_descriptor(self) -> int | None:
        """Lend a local file's descriptor, at its start, to a decoder that reads by itself.

        Twenty calls from C into Python for every second of audio cost a twentieth of
        decoding. :meth:`raise_kept` knows nothing of such reads; :meth:`check_here` does.

        Returns
        -------
        int or None
            ``None`` where there is no local file.
        """
        if not isinstance(self._file, io.FileIO):
            return None
        self._file.seek(0)
        return self._file.fileno()

    def check_here(self) -> int:
        """Give the position that a borrower has come to, having read what it would read next.

        Raises what went wrong, if it was the store and not the end of the file.
        """
        if not isinstance(self._file, io.FileIO):
            self.raise_kept()
            return self._position
        position = self._file.tell()
        patiently(lambda: self._file.read(1))
        return position

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset`, errors raised: for our own code.

        Fewer bytes at the end of the file; none where `offset` is not within it, or `size` is not
        positive: both may come from a damaged file.
        """
        if size <= 0 or not 0 <= offset < self.size_bytes:
            return b""
        self.seek(offset)
        data = self.read(size)
        self.raise_kept()
        return data

    def splice(self, pieces: Sequence[Piece]) -> StoredFile:
        """Give a view of the file that consists of some pieces of it, one after another.

        The view stays usable as long as this file is open.
        """
        return StoredFile(_SplicedFile(self, pieces))


class _SplicedFile(io.RawIOBase):
    """Pieces of a stored file, joined."""

    def __init__(self, file: StoredFile, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = pieces
        sizes = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._ends = list(accumulate(sizes))
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._ends[-1] if self._ends else 0
        self._position = offset + (0, self._position, end)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._ends, self._position)
        if number == len(self._pieces):
            return 0
        piece, left = self._pieces[number], self._ends[number] - self._position
        size = min(len(buffer), left)
        if isinstance(piece, bytes):
            data = piece[len(piece) - left :][:size]
        else:
            data = self._file.read_at(piece[1] - left, size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _PatientFile(io.RawIOBase):
    """Reads of one place each, so that a failed one can be asked for again."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._position = 0
        self.size_bytes = patiently(lambda: int(file.seek(0, io.SEEK_END)))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size_bytes)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self.size_bytes:
            return 0
        count = patiently(lambda: self._read_here(buffer))
        self._position += count
        return count

    def _read_here(self, buffer: Any) -> int:
        self._file.seek(self._position)
        return int(self._file.readinto(buffer))
