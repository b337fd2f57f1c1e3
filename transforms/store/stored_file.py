"""An open stored object for decoders in C: buffered, seekable, raises no errors in reads."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

from melmill.transforms.store.retries import patiently
from melmill.transforms.store.sized_file import SizedFile

#: Size of the buffer: a decoder asks for a few hundred bytes at a time.
BUFFER_BYTES = 2**16
#: The largest position that a file can have.
_MAX_POSITION = 2**63 - 1

#: A part of a spliced file: a range ``(start, end)`` of the stored file, or new bytes.
Piece = tuple[int, int] | bytes


class StoredFile:
    """A file that stores the errors of its reads.

    A decoder calls back into this object and loses its exceptions: soundfile takes a failed
    read for the end of the file and silently returns half the audio. So after an error all
    reads return nothing, and :meth:`raise_kept` raises the error after the decoder's call.

    The position is counted here: FLAC asks for it at every read, and the standard library's
    buffer would ask the operating system each time.

    Parameters
    ----------
    file
        Unbuffered binary file, or a file of fsspec.

    Attributes
    ----------
    size_bytes
        Size of the object when it was opened.
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
        """Raise the error of an earlier read, if there was one."""
        if self._kept is not None:
            raise self._kept

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` and return the count; 0 at the end of the file and after an error."""
        if self._kept is not None:
            return 0
        try:
            count = self._buffered.readinto(buffer)
        except BaseException as error:  # noqa: BLE001 - raise_kept raises the error later
            self._kept = error
            return 0
        self._position += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none at the end of the file and after an error."""
        if self._kept is not None:
            return b""
        # A damaged file may make a decoder ask for far too much, and the buffer allocates the
        # memory before the read.
        left = max(0, self.size_bytes - self._position)
        try:
            data = self._buffered.read(min(size, left) if size >= 0 else left)
        except BaseException as error:  # noqa: BLE001 - raise_kept raises the error later
            self._kept = error
            return b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it; -1 if a damaged file gives an impossible position."""
        target = offset + (0, self._position, self.size_bytes)[whence]
        if not 0 <= target <= _MAX_POSITION:
            return -1
        self._buffered.seek(target)
        self._position = target
        return target

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def write(self, data: object) -> int:
        """Raise UnsupportedOperation: soundfile needs the method, but no read calls it."""
        raise io.UnsupportedOperation("not writable")

    def lend_descriptor(self) -> int | None:
        """Return a local file's descriptor, at the file's start, for a decoder that reads itself.

        Twenty calls from C into Python for each second of audio cost one twentieth of
        decoding. :meth:`raise_kept` does not see errors of such reads; :meth:`check_here` does.

        Returns
        -------
        int or None
            Descriptor; ``None`` if this is not a local file.
        """
        if not isinstance(self._file, io.FileIO):
            return None
        self._file.seek(0)
        return self._file.fileno()

    def check_here(self) -> int:
        """Return the position of a decoder's reads; raise an error if the store failed there.

        For a local file this tries to read the next byte: the end of the file is no error.
        """
        if not isinstance(self._file, io.FileIO):
            self.raise_kept()
            return self._position
        position = self._file.tell()
        patiently(lambda: self._file.read(1))
        return position

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`; raise errors at once, for callers in Python.

        The result is shorter at the end of the file. It is empty if `offset` is outside the
        file or `size` is not positive: both may come from a damaged file.
        """
        if size <= 0 or not 0 <= offset < self.size_bytes:
            return b""
        self.seek(offset)
        data = self.read(size)
        self.raise_kept()
        return data

    def splice(self, pieces: Sequence[Piece]) -> StoredFile:
        """Return a view of this file that joins `pieces`, in their order.

        The view can be used as long as this file is open.
        """
        return StoredFile(_SplicedFile(self, pieces))


def buffered(file: Any) -> io.BufferedReader:
    """Return a buffered file for readers in Python: transient errors are retried, others raised.

    Parameters
    ----------
    file
        Unbuffered binary file, or a file of fsspec.
    """
    return io.BufferedReader(_PatientFile(file))


class _SplicedFile(SizedFile):
    """A file that joins pieces of a stored file."""

    def __init__(self, file: StoredFile, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = pieces
        sizes = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._ends = list(accumulate(sizes))
        super().__init__(sum(sizes))

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


class _PatientFile(SizedFile):
    """A file that seeks before each read, so that a failed read can be retried."""

    def __init__(self, file: Any) -> None:
        super().__init__(patiently(lambda: int(file.seek(0, io.SEEK_END))))
        self._file = file

    @property
    def size_bytes(self) -> int:
        return self._size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        count = patiently(lambda: self._read_here(buffer))
        self._position += count
        return count

    def _read_here(self, buffer: Any) -> int:
        self._file.seek(self._position)
        return int(self._file.readinto(buffer))
