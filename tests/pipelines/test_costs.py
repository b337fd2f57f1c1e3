"""Tests that a plan's costs equal those calculated by hand from the price lists."""

from __future__ import annotations

import pytest

from melmill.pipelines.estimate.costs import OFFERS, estimate_costs


def test_dataflow_costs_what_its_price_list_says() -> None:
    # The price of one vCPU of an e2-standard-4 for an hour. A machine works 0.8 of its rented time.
    hour = 0.056 + 4 * 0.003557 + 50 / 4 * 0.000054
    cost = estimate_costs(cpu_seconds=3600, audio_seconds=3600, recordings=0)["dataflow"]
    assert cost["usd"] == pytest.approx(hour / 0.8)
    assert cost["usd_per_1000_hours"] == pytest.approx(1000 * hour / 0.8)


def test_flink_costs_the_machines_and_its_taskmanagers() -> None:
    # The published price of the whole machine is 0.134012 per hour. Compare to a tenth of a cent.
    cost = estimate_costs(cpu_seconds=3600, audio_seconds=3600, recordings=0)["flink"]
    assert cost["usd"] == pytest.approx((0.134012 / 4 + 0.0006875) / 0.8 / 0.8, abs=0.001)


def test_shuffled_records_cost_on_dataflow_alone() -> None:
    costs = estimate_costs(cpu_seconds=0, audio_seconds=3600, recordings=10_000_000)
    assert costs["dataflow"]["usd"] == pytest.approx(30 * 0.011)
    assert costs["flink"]["usd"] == 0


def test_costs_grow_with_the_work_alone() -> None:
    costs, tenfold_costs = (estimate_costs(36 * n, 3.6e6 * n, 100 * n) for n in (1, 10))
    for offer in OFFERS:
        assert tenfold_costs[offer.name]["usd"] == pytest.approx(10 * costs[offer.name]["usd"])
        rates = [cost[offer.name]["usd_per_1000_hours"] for cost in (costs, tenfold_costs)]
        assert rates[0] == pytest.approx(rates[1])


def test_nothing_planned_costs_nothing() -> None:
    assert estimate_costs(0, 0, 0)["dataflow"]["usd_per_1000_hours"] == 0
