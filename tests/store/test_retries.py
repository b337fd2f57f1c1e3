"""Patience: how often a store is asked, and how long is waited between."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from melmill.transforms.store import retries as patience
from melmill.transforms.store.retries import insist


class Store:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Callable[[], Exception] = ConnectionResetError):
        self.failures, self.error, self.asked = failures, error, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error()
        return "answer"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(patience.RETRYING, "sleep", found.append)
    return found


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_store_that_answers_in_the_end_is_heard(waits: list[float], failures: int) -> None:
    store = Store(failures)
    assert insist(store) == "answer"
    assert (store.asked, len(waits)) == (failures + 1, failures)


def test_a_store_that_never_answers_is_asked_four_times(waits: list[float]) -> None:
    store = Store(99)
    with pytest.raises(ConnectionResetError):
        insist(store)
    assert (store.asked, len(waits)) == (4, 3)


def test_waits_are_random_up_to_half_a_second_then_one_then_two(waits: list[float]) -> None:
    for _ in range(200):
        with pytest.raises(ConnectionResetError):
            insist(Store(99))
    for number, most in enumerate((0.5, 1, 2)):
        found = waits[number::3]
        assert all(0 <= wait <= most for wait in found)
        assert max(found) > 0.9 * most > 0.1 * most > min(found)


def test_what_lasts_is_not_asked_again(waits: list[float]) -> None:
    store = Store(99, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        insist(store)
    assert (store.asked, waits) == (1, [])


def test_an_answer_that_breaks_off_is_asked_for_again(waits: list[float]) -> None:
    """Aiohttp calls it a bad message, by a status of its own that no store gave."""
    aiohttp = pytest.importorskip("aiohttp")
    from aiohttp.http_exceptions import ContentLengthError

    def broken_off() -> Exception:
        error = aiohttp.ClientPayloadError("Response payload is not completed")
        error.__cause__ = ContentLengthError("Not enough data")
        return error

    assert insist(Store(3, broken_off)) == "answer"
