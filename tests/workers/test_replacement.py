"""Workers that are replaced under load, in every class: a reload, and max_requests."""

from __future__ import annotations

import signal

import pytest

from harness.load import load
from harness.server import Serve
from workers.classes import ALL


@pytest.mark.parametrize("worker_class", ALL)
def test_workers_that_are_replaced_lose_nothing(serve: Serve, worker_class: str) -> None:
    server = serve("hello:app", "-k", worker_class, "-w", "2", "--max-requests", "100", "--max-requests-jitter", "50")
    with load(server) as traffic:
        server.wait_for_log("Booting worker with pid", count=5)
        server.signal(signal.SIGHUP)
        server.wait_for_log("Hang up: Master")
        server.wait_for_log("Booting worker with pid", count=12)
        traffic.wait_for(50)
    assert traffic.failures == []
    assert "Traceback" not in server.log
    assert server.stop() == 0
