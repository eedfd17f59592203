"""Workers that are replaced because they have served their time: the successor comes first, and nothing is lost."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

from harness.load import load
from harness.server import Serve, Server

Start = Callable[..., Server]

GREEDY = """
hoard = []

def app(environ, start_response):
    if environ['PATH_INFO'] == '/hoard':
        hoard.append(bytearray(b'x' * 80_000_000))
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
"""


def test_max_requests_replaces_workers_under_load_and_loses_nothing(serve: Serve) -> None:
    # max_requests is counted by the worker class; the plain one has no such thing.
    server = serve("hello:app", "-w", "2", "--max-requests", "40", "--max-requests-jitter", "10")
    first = server.wait_for_workers(2)
    with load(server) as traffic:
        server.wait_for_log("Booting worker with pid", count=6)
        traffic.wait_for(50)
    assert traffic.failures == []
    server.wait_for_workers(2, without=first)


def test_a_worker_that_grew_too_large_is_replaced(start: Start) -> None:
    limits = ("--max-worker-memory", "60000000", "--worker-memory-interval", "0.2")
    server = start("greedy:app", *limits, files={"greedy.py": GREEDY})
    (large,) = server.wait_for_workers(1)
    with load(server) as traffic:
        server.get("/hoard")
        reason = server.wait_for_log(rf"Worker \(pid:{large}\) is going to be replaced: it takes (\d+) bytes")
        server.wait_for_workers(1, without=[large])
        traffic.wait_for(50)
    assert int(reason[1]) > 60_000_000
    assert traffic.failures == []


def test_a_limit_that_every_new_worker_exceeds_replaces_none(start: Start) -> None:
    # Megabytes were meant.
    server = start("hello:app", "-w", "2", "--max-worker-memory", "512", "--worker-memory-interval", "0.05")
    workers = server.wait_for_workers(2)
    with load(server) as traffic:
        server.wait_for_log(
            r"\[WARNING\] max_worker_memory is 512 bytes, but a worker takes \d{7,} as soon as it is ready: .*\. "
            r"Raise max_worker_memory\n"
        )
        traffic.wait_for(300)  # a second, and twenty looks
    assert server.worker_pids() == workers
    assert server.log.count("Raise max_worker_memory") == 1
    assert "going to be replaced" not in server.log
    assert traffic.failures == []


def test_a_worker_that_is_old_enough_is_replaced(start: Start) -> None:
    server = start("hello:app", "-w", "2", "--max-worker-lifetime", "1", "--max-worker-lifetime-jitter", "0.5")
    first = server.wait_for_workers(2)
    with load(server) as traffic:
        server.wait_for_log(r"is going to be replaced: it has been ready for 1\.\d s \(max_worker_lifetime\)", count=2)
        server.wait_for_log("Booting worker with pid", count=4)
        server.signal(signal.SIGTTIN)  # recycling and scaling do not mind each other
        server.wait_for_workers(3, without=first)
        traffic.wait_for(50)
    assert traffic.failures == []


def test_the_successor_is_ready_before_the_old_one_drains(start: Start) -> None:
    server = start("hello:app", "--max-worker-lifetime", "1", "--log-level", "debug")
    (first,) = server.wait_for_workers(1)
    server.wait_for_log(rf"Worker exiting \(pid: {first}\)")
    events = re.findall(r"Worker (ready|exiting) \(pid: (\d+)\)", server.log)
    assert [event for event, _ in events[:3]] == ["ready", "ready", "exiting"]
