"""A remote object as a file: few requests for sequential reads, few bytes for other reads.

Each window is one request. The first window is small. While reads are sequential, each window
is as large as all windows before it together, up to a limit, and the next window is fetched
while the present one is decoded. After a jump the first window is small again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from melmill.transforms.store.sized_file import SizedFile

#: Function that returns the bytes from a start position up to, but not including, a stop position.
ReadRange = Callable[[int, int], bytes]

#: Size of a first window: enough for a header, or for one step of a search in a FLAC file.
SMALLEST_BYTES = 2**18
#: Largest size of a window: a request costs 6 ms of CPU, then one hundredth of decoding.
LARGEST_BYTES = 2**22
#: Size of a first window for a sequential read: most recordings fit into it.
FIRST_BYTES = 2**23
_WINDOWS = 4
_FETCHING = ThreadPoolExecutor(max_workers=8, thread_name_prefix="read-ahead")


class ReadAheadFile(SizedFile):
    """A file that reads ranges of an object.

    It holds at most four windows, and one more that is being fetched.

    Parameters
    ----------
    read
        Function that reads a range.
    size_bytes
        Size of the object.
    expected_stop
        Position at which reading will probably end: bytes after it are not fetched ahead.
    first
        Function that returns the object's first window. If that window is larger than a
        header, the second window is fetched ahead at once.
    """

    def __init__(
        self,
        read: ReadRange,
        size_bytes: int,
        expected_stop: int,
        first: Callable[[], bytes] | None = None,
    ) -> None:
        super().__init__(size_bytes)
        self._read = read
        self._expected = min(size_bytes, expected_stop)
        self._first = first
        self._windows: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._run_start = self._run_stop = -1

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` with the rest of the present window; return the count, 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._position >= self._size or not len(view):
            return 0
        start, content = self._window(self._position)
        part = content[self._position - start :][: len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _window(self, position: int) -> tuple[int, bytes]:
        """Return the start and the content of the window that holds a position."""
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
        # A single small window may be a header or a step of a search.
        is_single = self._run_start == start and stop - start <= SMALLEST_BYTES
        if is_single or stop >= self._expected:
            return
        following = self._stop(stop, min(self._run_stop - self._run_start, LARGEST_BYTES))
        self._ahead = stop, _FETCHING.submit(self._read, stop, following)

    def _stop(self, start: int, size: int) -> int:
        stop = start + min(max(size, SMALLEST_BYTES), LARGEST_BYTES)
        # A window that starts before the expected stop ends there, or after SMALLEST_BYTES.
        end = max(self._expected, start + SMALLEST_BYTES) if start < self._expected else self._size
        return min(stop, end, self._size)


class Prefetched:
    """Objects, or their first bytes, that are fetched before they are opened.

    At most `most` objects are kept; the oldest is dropped for a new one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._fetching: OrderedDict[tuple[str, str], Future[bytes]] = OrderedDict()

    def fetch(self, key: tuple[str, str], read: ReadRange, size_bytes: int) -> None:
        """Begin to fetch an object, unless it is being fetched already."""
        if key not in self._fetching:
            self._fetching[key] = _FETCHING.submit(read, 0, size_bytes)
        while len(self._fetching) > self._most:
            self._fetching.popitem(last=False)

    def take(self, key: tuple[str, str]) -> Future[bytes] | None:
        """Remove and return the fetch of an object; ``None`` if there is none."""
        return self._fetching.pop(key, None)
