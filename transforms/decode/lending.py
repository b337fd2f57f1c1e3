"""A pool of decoder processes; the steps of a worker borrow one for each bundle."""

from __future__ import annotations

import threading

from melmill.transforms.decode.isolation import DecoderProcess

_idle: dict[int, list[DecoderProcess]] = {}
_lock = threading.Lock()


def borrow_decoder(memory_bytes: int) -> DecoderProcess:
    """Return an idle or a new decoder process; give it back with :func:`return_decoder`."""
    with _lock:
        idle = _idle.setdefault(memory_bytes, [])
        return idle.pop() if idle else DecoderProcess(memory_bytes)


def return_decoder(memory_bytes: int, decoder: DecoderProcess) -> None:
    """Give a decoder process back, so that another step can use it."""
    with _lock:
        _idle.setdefault(memory_bytes, []).append(decoder)


def close_idle_decoders() -> None:
    """End the decoder processes that no step has borrowed."""
    with _lock:
        for decoders in _idle.values():
            while decoders:
                decoders.pop().close()
