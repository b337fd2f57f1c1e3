"""Tests that freed memory returns to the system, in this process and in its children."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from melmill.pipelines.run.memory import FOR_WORKERS, tune_allocation

pytestmark = pytest.mark.alone
glibc_only = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the setting has an effect only with glibc"
)

#: A program that frees large blocks with small blocks between them, and prints how many MiB the
#: process keeps. It calls the C library directly, because Python's own objects lie in different
#: places from version to version.
PROGRAM = """
import ctypes
import psutil
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def take(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block
if {tuned}:
    from melmill.pipelines.run.memory import FOR_WORKERS, tune_allocation
    tune_allocation()
libc.free(take(30 << 20))
before = psutil.Process().memory_info().rss
large = []
for _ in range(10):
    large.append(take(20 << 20))
    for _ in range(20):
        libc.malloc(100_000)
for block in large:
    libc.free(block)
print((psutil.Process().memory_info().rss - before) >> 20)
"""


#: A program that writes a shard with many row groups, and prints how many MiB the process grew
#: after the first five groups.
SHARD = """
import numpy as np
import psutil
from melmill.transforms.rows.parquet import ParquetShard
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.shards.writing import regroup
kinds = RowSchema((FeatureColumn("mel", (128, 130)),)).columns()
mel = np.random.default_rng(0).normal(size=(16, 128, 130)).astype(np.float32)
zero = {"string": "x", "int32": 0, "int64": 0, "float": 0.0}
batch = RowBatch({name: [zero[kind]] * len(mel) for name, kind in kinds.items()}, {"mel": mel})
sizes = []
with ParquetShard("shard.parquet", RowSchema((FeatureColumn("mel", (128, 130)),))) as shard:
    for group in regroup((batch for _ in range(8 * 100)), 128):
        shard.add(group)
        sizes.append(psutil.Process().memory_info().rss)
print((sizes[-1] - sizes[4]) >> 20)
"""


def kept_mib(tuned: bool) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM.format(tuned=tuned)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


@glibc_only
def test_large_blocks_go_back_although_small_ones_lie_between_them() -> None:
    # Two hundred MiB were allocated and freed.
    assert kept_mib(tuned=True) < 20
    assert kept_mib(tuned=False) > 60


def test_an_environment_that_says_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1234")
    tune_allocation()
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == "1234"


@pytest.mark.skipif(
    "jemalloc" not in pa.supported_memory_backends(), reason="this pyarrow has no jemalloc"
)
def test_a_worker_does_not_grow_with_its_shard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in FOR_WORKERS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    tune_allocation()
    process = subprocess.run(
        [sys.executable, "-c", SHARD], cwd=tmp_path, check=True, capture_output=True
    )
    # The shard has a hundred row groups of 8 MiB. With Arrow on glibc's heap, the process grew
    # by 23 to 170 MiB.
    assert int(process.stdout) < 10
