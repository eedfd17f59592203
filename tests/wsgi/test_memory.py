"""What is left of a request when it has been answered: nothing that it brought, and no more memory than before."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from apps.outlived import PATHS
from harness.server import Serve, Server

MIB = 1024 * 1024

#: Of the smallest thing that a server could forget to free, a hundred thousand are more than this.
GROWTH_MAX = 2 * MIB

REQUESTS = 100_000
BATCH = 500


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("outlived:app")


@pytest.mark.parametrize("body", [b"", b"sent"], ids=["without_a_body", "with_a_body"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_a_request_outlives_its_answer(server: Server, path: str, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    server.raw(head.encode() + body)  # Up to the close, which a duplicate of the socket would keep from coming.
    left = json.loads(server.get("/left").body)
    assert {"environ", "context", "name", "value", "status"} <= set(left) and ("input" in left) == bool(body)
    assert [name for name, is_there in left.items() if is_there] == []


def test_a_hundred_thousand_requests_leave_the_memory_as_it_was(serve: Serve) -> None:
    server = serve("hello:app")
    (worker,) = server.worker_pids()
    with server.connect() as sock:
        # Caches fill, and the allocators settle.
        ask(sock, range(REQUESTS // 4))
        before = resident_bytes(worker)
        ask(sock, range(REQUESTS))
        after = resident_bytes(worker)
    assert after - before < GROWTH_MAX


def ask(sock: socket.socket, numbers: range) -> None:
    """Make requests that differ in everything that a server might remember, many at a time."""
    for first in numbers[::BATCH]:
        sock.sendall(b"".join(request(number) for number in numbers[first : first + BATCH]))
        unread = BATCH
        tail = b""
        while unread:
            received = tail + sock.recv(1 << 16)
            assert len(received) > len(tail), "the server closed the connection"
            unread -= received.count(b"HTTP/1.1 200 ")
            tail = received[-12:]


def request(number: int) -> bytes:
    body = b"x" * (number % 7)
    return (
        b"POST /path/%d?query=%d HTTP/1.1\r\nHost: h\r\nX-Name-%d: %d\r\nCookie: id=%d\r\nContent-Length: %d\r\n\r\n%s"
        % (number, number, number, number, number, len(body), body)
    )


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
