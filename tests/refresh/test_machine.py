"""Any sequence of changes, refreshes, crashes and maintenance ends in what is right."""

from __future__ import annotations

import hypothesis.core
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.refresh.machine import DatasetMachine

HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.mark.parametrize(
    ("examples", "steps"), [(2, 10), pytest.param(60, 25, marks=pytest.mark.slow)]
)
def test_any_sequence_ends_as_a_fresh_extraction(examples: int, steps: int) -> None:
    walk(examples, steps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_long_walk(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypothesis.core, "global_force_seed", seed)
    walk(3, 50)  # the first that Hypothesis tries is the simplest


def walk(examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=HEALTH,
        print_blob=True,
    )
    run_state_machine_as_test(DatasetMachine, settings=chosen)
