"""What a plan costs: by hand, from the prices."""

from __future__ import annotations

import pytest

from melmill.pipelines.estimate.costs import OFFERS, estimate_costs


def test_dataflow_costs_what_its_price_list_says() -> None:
    # One vCPU of an e2-standard-4 for an hour, rented for 1 / 0.8 of the work.
    hour = 0.056 + 4 * 0.003557 + 50 / 4 * 0.000054
    found = estimate_costs(cpu_seconds=3600, audio_seconds=3600, recordings=0)["dataflow"]
    assert found["usd"] == pytest.approx(hour / 0.8)
    assert found["usd_per_1000_hours"] == pytest.approx(1000 * hour / 0.8)


def test_flink_costs_the_machines_and_its_taskmanagers() -> None:
    # The published price of the whole machine, 0.134012 an hour, to a tenth of a cent.
    found = estimate_costs(cpu_seconds=3600, audio_seconds=3600, recordings=0)["flink"]
    assert found["usd"] == pytest.approx((0.134012 / 4 + 0.0006875) / 0.8 / 0.8, abs=0.001)


def test_shuffled_records_cost_on_dataflow_alone() -> None:
    found = estimate_costs(cpu_seconds=0, audio_seconds=3600, recordings=10_000_000)
    assert found["dataflow"]["usd"] == pytest.approx(30 * 0.011)
    assert found["flink"]["usd"] == 0


def test_costs_grow_with_the_work_alone() -> None:
    one, ten = (estimate_costs(36 * n, 3.6e6 * n, 100 * n) for n in (1, 10))
    for offer in OFFERS:
        assert ten[offer.name]["usd"] == pytest.approx(10 * one[offer.name]["usd"])
        each = [cost[offer.name]["usd_per_1000_hours"] for cost in (one, ten)]
        assert each[0] == pytest.approx(each[1])


def test_nothing_planned_costs_nothing() -> None:
    assert estimate_costs(0, 0, 0)["dataflow"]["usd_per_1000_hours"] == 0
