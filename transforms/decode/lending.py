"""Decoder processes, lent to the steps of a worker one bundle at a time."""

from __future__ import annotations

import threading

from melmill.transforms.decode.isolation import DecoderProcess

_idle: dict[int, list[DecoderProcess]] = {}
_lock = threading.Lock()


def borrow_decoder(memory_bytes: int) -> DecoderProcess:
    """Take an idle decoder process, or a new one; give it back with :func:`return_decoder`."""
    with _lock:
        idle = _idle.setdefault(memory_bytes, [])
        return idle.pop() if idle else DecoderProcess(memory_bytes)


def return_decoder(memory_bytes: int, decoder: DecoderProcess) -> None:
    """Give a decoder process back for another step's use."""
    with _lock:
        _idle.setdefault(memory_bytes, []).append(decoder)
