"""The most unusual chunks of a dataset, searched in the background while pages are shown."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from melmill.pipelines.patterns import find_patterns
from melmill.transforms.patterns.results import Patterns
from melmill.transforms.store.folders import Store

#: Number of chunks that a search lists.
TOP = 1000


@dataclass(slots=True)
class Search:
    """A search for the unusual chunks of a version.

    Attributes
    ----------
    read
        Number of chunks that were compared so far; all are read once more before, for a sample.
    """

    future: Future[Patterns]
    read: int = 0

    @property
    def is_done(self) -> bool:
        """Whether the search has ended, with a result or an error."""
        return self.future.done()


class _StoppedError(Exception):
    """The explorer is closed."""


@dataclass(slots=True)
class UnusualChunks:
    """Searches for unusual chunks: one at a time, one for each version and feature.

    Attributes
    ----------
    store
        Dataset.
    """

    store: Store
    _searches: dict[tuple[int, str], Search] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_closed: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "unusual"))

    def search(self, version: int, feature: str) -> Search:
        """Return the search for a version and a feature; start it if it is new."""
        with self._lock:
            if (version, feature) not in self._searches:
                self._searches[version, feature] = self._start(version, feature)
            return self._searches[version, feature]

    def result(self, version: int, feature: str) -> Patterns:
        """Return the result of a search that is done.

        An error of the search is raised once; the next call of :meth:`search` starts it again.

        Raises
        ------
        ConfigError
            The feature cannot be compared.
        DatasetError
            A shard is damaged or missing.
        """
        search = self.search(version, feature)
        if search.future.exception() is not None:
            with self._lock:
                self._searches.pop((version, feature), None)
        return search.future.result()

    def close(self) -> None:
        """Stop the search that runs, and wait for its end."""
        self._is_closed.set()
        self._pool.shutdown(cancel_futures=True)

    def _start(self, version: int, feature: str) -> Search:
        search = Search(Future())

        def report(read: int) -> None:
            if self._is_closed.is_set():
                raise _StoppedError
            search.read = read

        search.future = self._pool.submit(
            find_patterns, self.store, feature=feature, top=TOP, version=version, report=report
        )
        return search
