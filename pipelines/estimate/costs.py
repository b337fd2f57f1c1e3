"""Estimate the price of an extraction on rented machines: measured CPU seconds times list prices.

The prices are Google's list prices for us-central1 in 2025, without discounts. Check them before
you rely on them: https://cloud.google.com/dataflow/pricing (batch worker: vCPU, memory, standard
disk, shuffle) and https://cloud.google.com/compute/all-pricing (E2 family). The prices are not
fetched at run time; the plan's JSON contains them, so that you can calculate with other prices.
Storage, requests and traffic are not included.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: The share of a core's time that is spent on work, if recordings come from an object store that
#: answers in 20 ms: 0.91 measured (benchmarks/latency.py), minus idle time at the start and end.
BUSY_SHARE = 0.8
#: The share of two Python workers, which run beside a TaskManager with half a core (deploy/flink).
FLINK_SHARE = 2 / 2.5
#: The total size of the records of a recording that pass through shuffles; audio does not.
SHUFFLED_BYTES = 3_000


@dataclass(frozen=True, slots=True)
class Offer:
    """The price of rented machines of type e2-standard-4 with 50 GB of disk.

    Attributes
    ----------
    name
        The name of the runner.
    usd_per_vcpu_hour
        The price of a vCPU with its 4 GB of memory and its share of the disk.
    usd_per_shuffled_gb
        The price of the data that passes through a shuffle.
    busy_share
        The share of the rented time that is spent on melmill's work.
    """

    name: str
    usd_per_vcpu_hour: float
    usd_per_shuffled_gb: float
    busy_share: float

    def estimate(self, cpu_seconds: float, recordings: int) -> float:
        """Return the estimated price in US dollars.

        >>> Offer("x", 0.1, 0.0, 0.5).estimate(3600, 10)
        0.2
        """
        rented_hours = cpu_seconds / 3600 / self.busy_share
        shuffled_gb = recordings * SHUFFLED_BYTES / 1e9
        return rented_hours * self.usd_per_vcpu_hour + shuffled_gb * self.usd_per_shuffled_gb


OFFERS = (
    # Per vCPU hour 0.056, per GB hour of memory 0.003557, of disk 0.000054, per shuffled GB 0.011.
    Offer("dataflow", 0.056 + 4 * 0.003557 + 12.5 * 0.000054, 0.011, BUSY_SHARE),
    # Per vCPU hour 0.02181159, per GB hour of memory 0.00292353, of disk 0.000055.
    Offer("flink", 0.02181159 + 4 * 0.00292353 + 12.5 * 0.000055, 0.0, BUSY_SHARE * FLINK_SHARE),
)


def estimate_costs(cpu_seconds: float, audio_seconds: float, recordings: int) -> dict[str, Any]:
    """Return the estimated price of an extraction for each offer.

    Parameters
    ----------
    cpu_seconds
        The CPU seconds that the extraction takes.
    audio_seconds, recordings
        The duration of the audio, and the number of recordings.

    Returns
    -------
    dict
        By offer: ``usd``, ``usd_per_1000_hours`` of audio, and the prices that were used.
    """
    thousand_hours = audio_seconds / 3600 / 1000
    costs = {}
    for offer in OFFERS:
        usd = offer.estimate(cpu_seconds, recordings)
        usd_per_1000_hours = usd / thousand_hours if thousand_hours else 0.0
        prices = {name: value for name, value in asdict(offer).items() if name != "name"}
        costs[offer.name] = {"usd": usd, "usd_per_1000_hours": usd_per_1000_hours, **prices}
    return costs
