"""A remote object as a file: few requests where it is read on and on, few bytes where it is not.

Each window is one request. The first one is small; as long as windows follow one another each
is as large as all before it together, up to a limit, and the next one is fetched while this
one is decoded. Wherever the reader jumps, it begins small again.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

#: Gives the bytes from one position to another, which is excluded.
ReadRange = Callable[[int, int], bytes]

#: Of a first window: a header, or one step of a search in a FLAC file.
SMALLEST_BYTES = 2**18
#: Of any window: a request of 6 ms of CPU is then a hundredth of decoding.
LARGEST_BYTES = 2**22
#: Of a first window, where it is known that reading goes on from there: all of most recordings.
FIRST_BYTES = 2**23
_WINDOWS = 4
_FETCHING = ThreadPoolExecutor(max_workers=8, thread_name_prefix="read-ahead")


class ReadAheadFile(io.RawIOBase):
    """A file over ranged reads.

    Holds at most four windows and the one that is being fetched.

    Parameters
    ----------
    read
        Reads a range.
    size_bytes
        The object's size.
    expected_stop
        Where reading is likely to end: nothing behind it is fetched ahead.
    first
        Gives the object's first window. The one behind it is fetched ahead at once if this one
        is larger than a header.
    """

    def __init__(
        self,
        read: ReadRange,
        size_bytes: int,
        expected_stop: int,
        first: Callable[[], bytes] | None = None,
    ) -> None:
        self._read = read
        self._size, self._position = size_bytes, 0
        self._expected = min(size_bytes, expected_stop)
        self._first = first
        self._windows: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._run_start = self._run_stop = -1

    def readable(self) -> bool:
        """Say so."""
        return True

    def seekable(self) -> bool:
        """Say so."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; gives the new position."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill a part of `buffer`: what its window has; 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._position >= self._size or not len(view):
            return 0
        start, content = self._window(self._position)
        part = content[self._position - start :][: len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _window(self, position: int) -> tuple[int, bytes]:
        """Find or fetch the window that holds a position."""
        for start, content in reversed(self._windows.items()):
            if start <= position < start + len(content):
                self._windows.move_to_end(start)
                return start, content
        start, content = self._fetch(position)
        self._windows[start] = content
        if len(self._windows) > _WINDOWS:
            self._windows.popitem(last=False)
        self._fetch_ahead(start, start + len(content))
        return start, content

    def _fetch(self, position: int) -> tuple[int, bytes]:
        first, self._first = self._first, None
        if first is not None and position < len(content := first()):
            return 0, content
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == position:
            return position, ahead[1].result()
        follows = position == self._run_stop
        size = self._run_stop - self._run_start if follows else SMALLEST_BYTES
        return position, self._read(position, self._stop(position, size))

    def _fetch_ahead(self, start: int, stop: int) -> None:
        if start != self._run_stop:
            self._run_start = start
        self._run_stop = stop
        # One small window alone may be a header, or a step of a search.
        alone = self._run_start == start and stop - start <= SMALLEST_BYTES
        if alone or stop >= self._expected:
            return
        following = self._stop(stop, min(self._run_stop - self._run_start, LARGEST_BYTES))
        self._ahead = stop, _FETCHING.submit(self._read, stop, following)

    def _stop(self, start: int, size: int) -> int:
        stop = start + min(max(size, SMALLEST_BYTES), LARGEST_BYTES)
        # Before its expected end nothing behind that is fetched, but for a smallest window.
        end = max(self._expected, start + SMALLEST_BYTES) if start < self._expected else self._size
        return min(stop, end, self._size)


class Prefetched:
    """Objects, or their first bytes, that are fetched before they are opened; a few at a time.

    Objects that are never opened make room for later ones.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._fetching: OrderedDict[tuple[str, str], Future[bytes]] = OrderedDict()

    def fetch(self, key: tuple[str, str], read: ReadRange, size_bytes: int) -> None:
        """Begin to fetch an object, unless that was begun before."""
        if key not in self._fetching:
            self._fetching[key] = _FETCHING.submit(read, 0, size_bytes)
        while len(self._fetching) > self._most:
            self._fetching.popitem(last=False)

    def take(self, key: tuple[str, str]) -> Future[bytes] | None:
        """Give what was begun, once."""
        return self._fetching.pop(key, None)
