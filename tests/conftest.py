"""How tests are divided among the processes that run them at once, with pytest-xdist.

A file's tests stay together, in their order, so that what a module's fixture made is made once;
those on Flink share one cluster, whose ports are taken. What takes long begins first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# How long an example takes says how busy the machine is.
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

# A shell lets what it starts in the background ignore this signal, and so would our commands.
signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).parents[1]
#: Folders by the time that one of their files takes, the longest first.
_LONG = ("tests/e2e/runners", "tests/examples", "tests/e2e", "tests/refresh", "tests/deploy")
_ON_FLINK = {"tests/e2e/runners/test_flink.py", "tests/e2e/runners/test_packaging.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_folder_rank)


def _folder_rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(_ROOT).parent
    ranks = [i for i, long in enumerate(_LONG) if folder.is_relative_to(long)]
    return min(ranks, default=len(_LONG))


# xdist's own `--dist loadgroup` sees no groups with pytest 9.2.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "flink" if file in _ON_FLINK else file

    return ByFile(config, log)
