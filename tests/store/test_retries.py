"""Tests of retries: the number of requests, and the waits between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from melmill.transforms.store import retries
from melmill.transforms.store.retries import insist


class Store:
    """A store whose first requests fail, as often as given."""

    def __init__(self, failures: int, error: Callable[[], Exception] = ConnectionResetError):
        self.failures, self.error, self.requests = failures, error, 0

    def __call__(self) -> str:
        self.requests += 1
        if self.requests <= self.failures:
            raise self.error()
        return "answer"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(retries.RETRYING, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_store_that_answers_after_retries_succeeds(waits: list[float], failures: int) -> None:
    store = Store(failures)
    assert insist(store) == "answer"
    assert (store.requests, len(waits)) == (failures + 1, failures)


def test_a_store_that_never_answers_is_asked_four_times(waits: list[float]) -> None:
    store = Store(99)
    with pytest.raises(ConnectionResetError):
        insist(store)
    assert (store.requests, len(waits)) == (4, 3)


def test_waits_are_random_up_to_half_a_second_then_one_then_two(waits: list[float]) -> None:
    for _ in range(200):
        with pytest.raises(ConnectionResetError):
            insist(Store(99))
    for number, longest in enumerate((0.5, 1, 2)):
        waited = waits[number::3]
        assert all(0 <= wait <= longest for wait in waited)
        assert max(waited) > 0.9 * longest > 0.1 * longest > min(waited)


def test_a_permanent_error_is_not_retried(waits: list[float]) -> None:
    store = Store(99, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        insist(store)
    assert (store.requests, waits) == (1, [])


def test_a_response_that_breaks_off_is_retried(waits: list[float]) -> None:
    """aiohttp reports it as a bad message, with a status that no store sent."""
    aiohttp = pytest.importorskip("aiohttp")
    from aiohttp.http_exceptions import ContentLengthError

    def broken_off() -> Exception:
        error = aiohttp.ClientPayloadError("Response payload is not completed")
        error.__cause__ = ContentLengthError("Not enough data")
        return error

    assert insist(Store(3, broken_off)) == "answer"
