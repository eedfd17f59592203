"""Workers are killed at random under load: only what was in a killed worker is lost, and nothing is lost for good."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from harness.load import Traffic, load
from harness.server import Serve, Server

WORKERS = 3
#: How long after a kill its losses may show: the clients' process has to be scheduled, on a busy machine as well.
NOTICE_S = 1.0


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent", "asgi"])
@pytest.mark.parametrize("seconds", [pytest.param(1, id="short"), pytest.param(60, id="long", marks=pytest.mark.soak)])
def test_only_requests_in_a_killed_worker_are_lost(serve: Serve, worker_class: str, seconds: float) -> None:
    rng = random.Random(1)
    server = serve("journal:app", "-k", worker_class, "-w", str(WORKERS), "--log-level", "debug")
    server.wait_for_ready(WORKERS)
    killed: dict[int, float] = {}
    pause = threading.Event()
    with load(server, keep_alive=8, fresh=8, rate=250) as traffic:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            victim = rng.choice(server.wait_for_workers(WORKERS))
            traffic.wait_for(20)
            killed[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            server.wait_for_workers(WORKERS, without=[victim])
            pause.wait(rng.uniform(0.0, 1.0))
        server.wait_for_workers(WORKERS)
        traffic.wait_for(200)
    assert_lost_in(server, traffic, killed)
    assert server.stop() == 0


def assert_lost_in(server: Server, traffic: Traffic, killed: dict[int, float]) -> None:
    """Every loss was in a worker that was killed at that time: begun there, or read by nobody yet."""
    began = {}
    for line in (server.directory / "journal").read_text().splitlines():
        pid, word, name = line.split()
        if word == "began":
            began[name] = int(pid)
    for loss in traffic.failures:
        assert loss.kind in ("reset", "closed"), loss
        assert any(at <= loss.at <= at + NOTICE_S for at in killed.values()), loss
        assert loss.request not in began or began[loss.request] in killed, loss
    # At this rate a request or two are under way at a time; others may wait in the killed worker's open connections.
    assert len(traffic.failures) <= 4 * len(killed), traffic
