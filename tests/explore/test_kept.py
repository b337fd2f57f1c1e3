"""Values that are kept: made once, dropped when there is no room, and not kept after an error."""

from __future__ import annotations

import threading
import time

import pytest

from melmill.pipelines.explore.kept import Kept


def test_a_value_is_made_once_until_it_is_dropped_for_newer_ones() -> None:
    made = list[str]()
    kept: Kept[str] = Kept(4, len)

    def get(value: str) -> str:
        return kept.get(value, lambda: made.append(value) or value)

    for value in ("aa", "bb", "aa", "cc", "aa", "bb"):
        assert get(value) == value
    # When cc came, bb had not been used for the longest.
    assert made == ["aa", "bb", "cc", "bb"]


def test_a_value_that_is_too_large_is_returned_all_the_same() -> None:
    kept: Kept[str] = Kept(1, len)
    assert kept.get(0, lambda: "large") == "large"


def test_nothing_is_kept_of_an_error() -> None:
    kept: Kept[str] = Kept(9, len)

    def fail() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept.get(0, fail)
    assert kept.get(0, lambda: "now") == "now"


def test_threads_that_ask_at_once_get_the_value_that_one_of_them_makes() -> None:
    made, got = list[int](), list[int]()
    kept: Kept[int] = Kept(9, lambda value: 1)

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return len(made)

    threads = [threading.Thread(target=lambda: got.append(kept.get(0, make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, got) == ([1], [1, 1, 1, 1])
