"""Memory that is free goes back to the system, in this process and in its children."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pipelines.memory import tune_allocation

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")

#: Frees blocks in an order that leaves small ones between them, and says what is kept.
PROGRAM = """
import psutil
if {wanted}:
    from pipelines.memory import tune_allocation
    tune_allocation()
before = psutil.Process().memory_info().rss
one = bytearray(30 << 20)
del one
large, small = [], []
for _ in range(10):
    large.append(bytearray(20 << 20))
    large[-1][::4096] = bytes(len(large[-1]) // 4096)
    small.append(bytearray(100_000))
del large
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def kept_mib(wanted: bool) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM.format(wanted=wanted)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


@glibc_only
def test_large_blocks_go_back_although_small_ones_lie_between_them() -> None:
    # Two hundred MiB were allocated and freed.
    assert kept_mib(wanted=True) < 20
    assert kept_mib(wanted=False) > 60


def test_an_environment_that_says_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1234")
    tune_allocation()
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == "1234"
