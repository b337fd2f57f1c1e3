"""PyTorch's DataLoader and torchdata's StatefulDataLoader read the one order, and resume in it.

These tests need torch and torchdata; see tests/packaging/test_with_torch.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.conftest import ROWS

torch = pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")
from torch.utils.data import DataLoader  # noqa: E402 - needs torch

KEY = ["number", "chunk_index"]
ORDER = RowOrder(seed=1, window_rows=16, lanes=4, turn_rows=2)


def opened(dataset: Dataset, batch_size: int = 4, columns: Any = KEY, **options: Any) -> Any:
    return dataset.as_torch("train", columns, batch_size=batch_size, order=ORDER, **options)


def keys_of(batches: Any) -> list[tuple[int, int]]:
    return [
        key
        for batch in batches
        for key in zip(*(batch[name].tolist() for name in KEY), strict=True)
    ]


@pytest.fixture(scope="module")
def expected(small: Dataset) -> list[tuple[int, int]]:
    return keys_of(opened(small))


def test_batches_have_tensors_as_collate_makes_them(small):
    columns = ["samples", "genre", "rms_dbfs", *KEY]
    for batch in DataLoader(opened(small, columns=columns), batch_size=None):
        assert batch["samples"].dtype == torch.float32
        assert batch["samples"].shape[1:] == (400,)
        assert batch["rms_dbfs"].dtype == torch.float64
        assert batch["number"].dtype == torch.int64
        assert isinstance(batch["genre"], list)
    assert len(opened(small)) == -(-ROWS // 4)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_sequence(small, expected, workers):
    assert keys_of(DataLoader(opened(small), batch_size=None, num_workers=workers)) == expected


@pytest.mark.parametrize(("workers", "later"), [(0, 2), (2, 1), (2, 4)])
def test_interrupted_it_resumes_with_another_number_of_workers(small, expected, workers, later):
    rows = opened(small)
    rows.set_epoch(1)
    whole = keys_of(DataLoader(rows, batch_size=None))
    loader = iter(DataLoader(rows, batch_size=None, num_workers=workers))
    before = [next(loader) for _ in range(5)]
    state = rows.state_dict(batches=5)
    resumed = opened(small, batch_size=3)
    resumed.load_state_dict(state)
    resumed.set_epoch(resumed.epoch)  # as a training loop does
    after = DataLoader(resumed, batch_size=None, num_workers=later)
    assert keys_of(before) + keys_of(after) == whole
    assert whole != expected
    resumed.set_epoch(0)
    assert keys_of(after) == expected


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_torchdatas_loader_resumes_anywhere(small, workers, taken):
    rows = opened(small)
    rows.set_epoch(2)
    loader = stateful.StatefulDataLoader(rows, batch_size=None, num_workers=workers)
    batches = iter(loader)
    before = [next(batches) for _ in range(taken)]
    state = loader.state_dict()
    rest = keys_of(batches)
    fresh = opened(small)
    fresh.set_epoch(2)
    resumed = stateful.StatefulDataLoader(fresh, batch_size=None, num_workers=workers)
    resumed.load_state_dict(state)
    assert keys_of(resumed) == rest
    fresh.set_epoch(0)
    assert keys_of(resumed) == keys_of(opened(small))
    assert len(before) == taken


def test_persistent_workers_begin_each_epoch_at_its_start(small, expected):
    rows = opened(small)
    loader = stateful.StatefulDataLoader(
        rows, batch_size=None, num_workers=2, persistent_workers=True
    )
    assert keys_of(loader) == expected
    rows.set_epoch(1)
    second = keys_of(loader)
    rows.set_epoch(0)
    assert keys_of(loader) == expected
    assert second != expected


def test_without_workers_the_rows_know_their_state(small, expected):
    rows = opened(small)
    batches = iter(rows)
    before = [next(batches) for _ in range(7)]
    resumed = opened(small)
    resumed.load_state_dict(rows.state_dict())
    assert keys_of(before) + keys_of(resumed) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_only_the_first_pass_begins_at_a_states_position(small, expected, workers):
    rows = opened(small)
    rows.load_state_dict(rows.state_dict(batches=5))
    loader = DataLoader(rows, batch_size=None, num_workers=workers)
    first, second = keys_of(loader), keys_of(loader)
    assert first == expected[20:]
    assert second == expected
    rows.set_epoch(0)
    assert keys_of(loader) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stateful_loader_knows_its_epoch(small, workers):
    rows = opened(small)
    rows.set_epoch(3)
    loader = stateful.StatefulDataLoader(rows, batch_size=None, num_workers=workers)
    batches = iter(loader)
    next(batches)
    state, rest = loader.state_dict(), keys_of(batches)
    fresh = opened(small)
    resumed = stateful.StatefulDataLoader(fresh, batch_size=None, num_workers=workers)
    resumed.load_state_dict(state)
    assert keys_of(resumed) == rest
    assert fresh.epoch == 3


def test_a_state_that_only_workers_know_is_refused(small):
    rows = opened(small)
    next(iter(rows))  # a look in this process says nothing about the workers
    next(iter(DataLoader(rows, batch_size=None, num_workers=1)))
    with pytest.raises(DatasetError, match=r"state_dict\(batches=...\)"):
        rows.state_dict()


def test_ranks_divide_each_step(small, expected):
    ranks = [opened(small, rank=rank, world_size=2) for rank in range(2)]
    loaders = [DataLoader(rows, batch_size=None, num_workers=2) for rows in ranks]
    steps = zip(*((keys_of([b]) for b in loader) for loader in loaders), strict=False)
    merged = [key for step in steps for part in step for key in part]
    assert merged == expected[: len(merged)]
    assert len(merged) > ROWS - 8


def test_settings_of_batches_need_a_batch_size(small):
    with pytest.raises(ConfigError, match="need batch_size"):
        small.as_torch("train", order=ORDER)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        small.as_torch("train", batch_size=0)


def test_a_state_of_another_dataset_is_refused(small, other):
    with pytest.raises(DatasetError, match=r"sources\[0\].dataset"):
        opened(small).load_state_dict(opened(other).state_dict())


def test_all_batches_hold_the_exact_values(small):
    table = small.as_arrow("train").to_table().to_pylist()
    stored = {(row["number"], row["chunk_index"]): row["samples"] for row in table}
    for batch in DataLoader(opened(small, columns=["samples", *KEY]), batch_size=None):
        for samples, key in zip(batch["samples"], keys_of([batch]), strict=True):
            np.testing.assert_array_equal(samples.numpy(), np.float32(stored[key]))
