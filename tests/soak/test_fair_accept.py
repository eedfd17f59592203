"""New connections are spread over the workers: none is idle while another has most of them."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from harness.answers import AnswerReader
from harness.server import DEADLINE_S, Serve

WORKERS = 4
CONNECTIONS = 2_000


@pytest.mark.parametrize("in_flight", [1, 16])
def test_each_of_four_workers_gets_its_share(serve: Serve, in_flight: int) -> None:
    server = serve("traffic:app", "-w", str(WORKERS), "--log-level", "debug")
    pids = server.wait_for_ready(WORKERS)
    port = server.port
    counts = Counter(pid for _ in range(CONNECTIONS // in_flight) for pid in ask_at_once(port, in_flight))
    assert set(counts) == set(pids)
    shares = {pid: count / counts.total() for pid, count in counts.items()}
    assert all(0.10 <= share <= 0.40 for share in shares.values()), shares


def ask_at_once(port: int, count: int) -> list[int]:
    """Open that many connections, and only then read which process answers each."""
    socks = [socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(count)]
    for sock in socks:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    pids = [int(AnswerReader(sock).read_answer().header("X-Pid") or 0) for sock in socks]
    for sock in socks:
        sock.close()
    return pids
