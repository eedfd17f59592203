"""Who gets the connections: ten thousand short ones over several workers, counted by worker.

Owns       the count and nothing else; the servers run on all usable cores, as they would in production.
Never      measures time: how even the shares are is the only question here.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from bench.connections import CLOSE_REQUEST, ConnectionSet, allow_descriptors
from bench.results import Distribution
from bench.running import Request, RunningServer
from bench.servers import SERVERS, Order

WORKERS: Final = 4
CONNECTIONS: Final = 10_000
IN_FLIGHT: Final = 16
COMPARED: Final = ("bicorn", "gunicorn-sync")


# Not counted: in their time every worker boots, and an event loop's first accepts are its own affair.
_WARM_UP_CONNECTIONS: Final = 1_000


def count(server_name: str) -> Distribution:
    """Each connection asks which process answered it."""
    allow_descriptors(IN_FLIGHT)
    order = Order("bench.apps.worker_pid:app", workers=WORKERS)
    with RunningServer(SERVERS[server_name], order, Request(answer=None), cpu=None) as server:
        _connect(server.order.port, _WARM_UP_CONNECTIONS)
        by_worker = Counter(_connect(server.order.port, CONNECTIONS))
    # A worker that got none has a share too.
    counts = sorted(by_worker.values(), reverse=True) + [0] * (WORKERS - len(by_worker))
    return Distribution(server_name, WORKERS, CONNECTIONS, IN_FLIGHT, counts)


def _connect(port: int, connections: int) -> list[bytes]:
    clients = ConnectionSet(port, connections, CLOSE_REQUEST, keep_open=False, in_flight_max=IN_FLIGHT)
    clients.run()
    return clients.bodies
