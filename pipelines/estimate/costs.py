"""What an extraction would cost on rented machines: measured CPU seconds times list prices.

Prices are Google's list prices for us-central1 without discounts, as they stood in 2025; look them
up before you rely on them: https://cloud.google.com/dataflow/pricing (batch worker: vCPU, memory,
standard disk, shuffle) and https://cloud.google.com/compute/all-pricing (E2 family). They are not
asked for at run time; what is in the plan's JSON allows to reckon with others. Storage, requests
and traffic come on top.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: Share of a core's time that is spent on the work, where recordings come from an object store
#: that answers in 20 ms: 0.91 measured (benchmarks/latency.py), less what start and end leave idle.
BUSY_SHARE = 0.8
#: Beside two Python workers runs half a core's TaskManager (deploy/flink).
FLINK_SHARE = 2 / 2.5
#: Records that pass through a shuffle for one recording, all of them together; no audio does.
SHUFFLED_BYTES = 3_000


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to rent machines, e2-standard-4 with 50 GB of disk.

    Attributes
    ----------
    name
        Of the runner.
    usd_per_vcpu_hour
        With its 4 GB of memory, and its share of the disk.
    usd_per_shuffled_gb
        For what passes through a shuffle.
    busy_share
        Share of the rented time that is work of ours.
    """

    name: str
    usd_per_vcpu_hour: float
    usd_per_shuffled_gb: float
    busy_share: float

    def estimate(self, cpu_seconds: float, recordings: int) -> float:
        """Estimate the price in US dollars.

        >>> Offer("x", 0.1, 0.0, 0.5).estimate(3600, 10)
        0.2
        """
        rented_hours = cpu_seconds / 3600 / self.busy_share
        shuffled_gb = recordings * SHUFFLED_BYTES / 1e9
        return rented_hours * self.usd_per_vcpu_hour + shuffled_gb * self.usd_per_shuffled_gb


OFFERS = (
    # 0.056 a vCPU hour, 0.003557 a GB hour of memory, 0.000054 of disk, 0.011 a shuffled GB.
    Offer("dataflow", 0.056 + 4 * 0.003557 + 12.5 * 0.000054, 0.011, BUSY_SHARE),
    # 0.02181159 a vCPU hour, 0.00292353 a GB hour of memory, 0.000055 of disk.
    Offer("flink", 0.02181159 + 4 * 0.00292353 + 12.5 * 0.000055, 0.0, BUSY_SHARE * FLINK_SHARE),
)


def estimate_costs(cpu_seconds: float, audio_seconds: float, recordings: int) -> dict[str, Any]:
    """Estimate what an extraction costs on each offer.

    Parameters
    ----------
    cpu_seconds
        That it takes.
    audio_seconds, recordings
        That it is of.

    Returns
    -------
    dict
        By offer: ``usd``, ``usd_per_1000_hours`` of audio, and the prices reckoned with.
    """
    thousands = audio_seconds / 3600 / 1000
    costs = {}
    for offer in OFFERS:
        usd = offer.estimate(cpu_seconds, recordings)
        each = usd / thousands if thousands else 0.0
        prices = {name: value for name, value in asdict(offer).items() if name != "name"}
        costs[offer.name] = {"usd": usd, "usd_per_1000_hours": each, **prices}
    return costs
