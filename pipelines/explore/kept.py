"""Values that are made when they are needed and kept in memory while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class _Entry(Generic[Value]):
    value: Value | None = None
    size_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Kept(Generic[Value]):
    """Values by key, for several threads; those that were not used for the longest go first.

    Parameters
    ----------
    most_bytes
        Size of all values that are kept. The value that was asked for last is always kept.
    size_of
        Function that returns the size of a value in bytes.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[Value], int]) -> None:
        """Start with nothing."""
        self._most_bytes, self._size_of = most_bytes, size_of
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if it is not kept.

        Threads that ask for the same key at the same time wait for the one that makes the value.
        If `make` raises an error, nothing is kept, and the error passes through.
        """
        while True:
            with self._lock:
                entry = self._entries.setdefault(key, _Entry())
                self._entries.move_to_end(key)
            with entry.lock:
                if entry.value is None:
                    if self._entries.get(key) is not entry:
                        continue  # the thread that was to make the value has failed
                    entry.value = self._make(key, make)
                    entry.size_bytes = self._size_of(entry.value)
                value = entry.value
            with self._lock:
                self._shrink()
            return value

    def _make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        try:
            return make()
        except BaseException:
            with self._lock:
                self._entries.pop(key, None)
            raise

    def _shrink(self) -> None:
        total = sum(entry.size_bytes for entry in self._entries.values())
        while total > self._most_bytes and len(self._entries) > 1:
            total -= self._entries.popitem(last=False)[1].size_bytes
