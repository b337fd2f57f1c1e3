"""After any sequence of changes, refreshes, crashes and maintenance, the dataset is correct."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from tests.refresh.machine import DatasetMachine

HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
RULES = {
    name: rule.arguments
    for name, method in sorted(vars(DatasetMachine).items())
    if (rule := getattr(method, RULE_MARKER, None)) is not None
}


@pytest.mark.parametrize(
    ("examples", "steps"), [(2, 10), pytest.param(60, 25, marks=pytest.mark.slow)]
)
def test_any_sequence_ends_as_a_fresh_extraction(examples: int, steps: int) -> None:
    chosen_settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=HEALTH,
        print_blob=True,
    )
    run_state_machine_as_test(DatasetMachine, settings=chosen_settings)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_long_walk(number: int) -> None:
    walk(number, 50)


def test_walks_know_every_rule_of_the_machine() -> None:
    assert {"refresh", "take_down", "roll_back"} <= {*RULES}
    assert len(RULES) >= 25


def walk(number: int, steps: int, examples: int = 3) -> None:
    """Take random steps; every rule is equally likely.

    Hypothesis itself leaves some rules out of most sequences, so that other rules are likelier.
    So it needs more sequences than we have time for. Its first sequence is always the simplest.
    """

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=HEALTH,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.data())
    def take(data: st.DataObject) -> None:
        machine = DatasetMachine()
        machine.begin()
        with machine.patches:
            for _ in range(steps):
                name = data.draw(st.sampled_from(sorted(RULES)), label="rule")
                arguments = {
                    key: data if key == "data" else data.draw(strategy, label=key)
                    for key, strategy in RULES[name].items()
                }
                getattr(machine, name)(**arguments)
                machine.what_is_there_is_whole()
            machine.teardown()

    take()
