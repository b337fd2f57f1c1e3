"""What is counted while a run goes on: Beam's counters, and datagrams to a live display.

The counters are the record, with the same names on every runner. The datagrams are for a
launcher that waits on the same machine: losing one does no harm, since each carries a
worker's totals so far.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass, field

from apache_beam.metrics import Metrics

NAMESPACE = "melmill"

_SECONDS_BETWEEN = 0.2


def count(name: str, number: int = 1) -> None:
    """Add to one of the run's counters."""
    Metrics.counter(NAMESPACE, name).inc(number)


@dataclass(eq=False)
class Progress:
    """Tells the launcher what this step has done so far.

    Attributes
    ----------
    address
        ``host:port`` on this machine; empty where nobody listens.
    totals
        What was counted since this object was made.
    """

    address: str
    totals: dict[str, float] = field(default_factory=dict)
    _socket: socket.socket | None = None
    _sent: float = 0.0

    def add(self, **numbers: float) -> None:
        """Count, and tell so if the last telling is a while ago."""
        for name, number in numbers.items():
            self.totals[name] = self.totals.get(name, 0) + number
        if time.monotonic() - self._sent > _SECONDS_BETWEEN:
            self.tell()

    def tell(self) -> None:
        """Send the totals."""
        if not self.address:
            return
        self._socket = self._socket or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        host, port = self.address.rsplit(":", 1)
        message = {"source": f"{os.getpid()}:{id(self)}", "totals": self.totals}
        self._socket.sendto(json.dumps(message).encode(), (host, int(port)))
        self._sent = time.monotonic()
