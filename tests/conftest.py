"""Divide the tests among the processes of pytest-xdist.

The tests of a file run in one process and in their order, so that a module's fixtures are made
only once. The tests on Flink also run in one process, because they share a cluster with fixed
ports. The slowest folders start first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.explore.browser import chromium

__all__ = ["chromium"]  # one for all folders: a process can start Playwright only once

# The time of an example depends on how busy the machine is, so examples have no deadline.
settings.register_profile("melmill", deadline=None)
# For mutation testing: few examples, always the same, and a failure is not made smaller.
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("melmill")

# A shell makes its background processes ignore this signal, and our commands would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).parents[1]
#: Folders with slow files, the slowest folder first.
_SLOW = ("tests/e2e/runners", "tests/examples", "tests/e2e", "tests/refresh", "tests/deploy")
_ON_FLINK = {"tests/e2e/runners/test_flink.py", "tests/e2e/runners/test_packaging.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_folder_rank)


def _folder_rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(_ROOT).parent
    ranks = [i for i, slow in enumerate(_SLOW) if folder.is_relative_to(slow)]
    return min(ranks, default=len(_SLOW))


# With pytest 9.2, xdist's own `--dist loadgroup` does not see the groups.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "flink" if file in _ON_FLINK else file

    return ByFile(config, log)
