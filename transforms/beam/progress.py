"""Progress of a worker, told to the launcher by datagrams for a live display.

The datagrams are for a launcher that waits on the same machine. A lost datagram does no harm,
because each contains a worker's totals so far.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass, field

_SECONDS_BETWEEN = 0.2


@dataclass(eq=False)
class Progress:
    """Counts the work of a step, and reports the counts to the launcher.

    Attributes
    ----------
    address
        ``host:port`` on this machine; ``""`` if the launcher does not listen.
    totals
        Counts since this object was made.
    """

    address: str
    totals: dict[str, float] = field(default_factory=dict)
    _socket: socket.socket | None = None
    _sent: float = 0.0

    def add(self, **numbers: float) -> None:
        """Add to the totals, and send them if the last message was sent a while ago."""
        for name, number in numbers.items():
            self.totals[name] = self.totals.get(name, 0) + number
        if time.monotonic() - self._sent > _SECONDS_BETWEEN:
            self.tell()

    def tell(self) -> None:
        """Send the totals."""
        if not self.address:
            return  # the launcher is on another machine, and reads Beam's counters
        self._socket = self._socket or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        host, port = self.address.rsplit(":", 1)
        message = {"source": f"{os.getpid()}:{id(self)}", "totals": self.totals}
        self._socket.sendto(json.dumps(message).encode(), (host, int(port)))
        self._sent = time.monotonic()
