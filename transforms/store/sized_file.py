"""The common part of read-only files of a known size, which count their position themselves."""

from __future__ import annotations

import io


class SizedFile(io.RawIOBase):
    """A file of a known size; a subclass reads at :attr:`_position` and moves it.

    Parameters
    ----------
    size_bytes
        Size of the file.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size, self._position = size_bytes, 0

    def readable(self) -> bool:
        """Return True: the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: the file can seek."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position
