"""A state resumes the same order, and no other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.loading.row_order import RowOrder
from melmill.transforms.loading.state import OrderIdentity, SourceIdentity

SOURCE = SourceIdentity("0f", 3, "train", 100, 128)
IDENTITY = OrderIdentity((SOURCE,), RowOrder(seed=5), 100)


def test_a_state_is_plain_values_and_gives_back_epoch_and_position():
    state = json.loads(json.dumps(IDENTITY.as_state(2, 64)))
    assert IDENTITY.require_own(state) == (2, 64)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(IDENTITY, order=RowOrder(seed=6)), "order.seed is 6, and this loader has 5"),
        (replace(IDENTITY, order=RowOrder(5, lanes=2)), "order.lanes is 2"),
        (replace(IDENTITY, sources=(replace(SOURCE, dataset="0e"),)), r"sources\[0\].dataset"),
        (replace(IDENTITY, sources=(replace(SOURCE, version=4),)), r"sources\[0\].version is 4"),
        (replace(IDENTITY, sources=(replace(SOURCE, split="test"),)), "split is 'test'"),
        (replace(IDENTITY, sources=(replace(SOURCE, weighting="x"),)), "weighting is 'x'"),
        (replace(IDENTITY, sources=(SOURCE, SOURCE)), "sources is"),
    ],
)
def test_a_state_of_another_order_is_refused(other, message):
    with pytest.raises(DatasetError, match=message):
        IDENTITY.require_own(other.as_state(0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2"),
        ({"position": 101}, "position is 101, and an epoch has 100 rows"),
        ({"position": -1}, "position is -1"),
        ({"epoch": "1"}, "epoch is '1'"),
        ({"epoch": True}, "epoch is True"),
        ({"order": None}, "order is None"),
    ],
)
def test_a_damaged_state_is_refused(change, message):
    with pytest.raises(DatasetError, match=message):
        IDENTITY.require_own({**IDENTITY.as_state(0, 0), **change})


def test_what_is_no_state_is_refused():
    with pytest.raises(DatasetError, match="format is None"):
        IDENTITY.require_own({})
