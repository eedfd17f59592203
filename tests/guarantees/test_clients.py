"""What slow and greedy clients cost others: docs/guarantees.md, 5 and 6. Each server has one worker."""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import Serve, Server

KIB = 1024
MIB = 1024 * KIB
#: What the kernel may hold on both sides of a connection (tcp_wmem and tcp_rmem end at 4 and 6 MiB), and some more.
KERNEL_BYTES_MAX = 16 * MIB
#: Clients at the same time: more than anybody has workers.
CROWD = 50
#: After this long without a byte taken, a peer is taken to have stopped reading.
STALLED_MS = 500


@pytest.fixture
def server(serve: Serve) -> Server:
    """One worker."""
    started = serve("bounded:app")
    assert started.get("/pulled").body == b"0"
    return started


@contextlib.contextmanager
def crowd(server: Server, opening: bytes) -> Iterator[list[socket.socket]]:
    """Many clients that have sent the same bytes."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(CROWD)]
        for sock in socks:
            sock.sendall(opening)
        yield socks


def memory_peak(server: Server) -> int:
    """The most memory that the worker ever held, in bytes."""
    (worker,) = server.worker_pids()
    status = (Path("/proc") / str(worker) / "status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * KIB


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"GET / HTTP/1.1\r\nHo",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
    ids=["silence", "half a head", "half a body", "half a chunk"],
)
def test_slow_senders_hold_no_worker(server: Server, opening: bytes) -> None:
    with crowd(server, opening):
        assert server.get("/").body == b"0"


def test_slow_readers_hold_no_worker(server: Server) -> None:
    with crowd(server, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert server.get("/").body == b"0"


def test_an_endless_answer_is_not_collected_for_a_reader_who_rests(server: Server) -> None:
    before = memory_peak(server)
    with server.connect() as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(STALLED_MS)
        pulled = [int(server.get("/pulled").body)]
        while len(pulled) < 2 or pulled[-1] != pulled[-2]:
            pulled.append(int(server.get("/pulled").body))
        assert pulled[-1] * 64 * KIB < KERNEL_BYTES_MAX
    assert memory_peak(server) - before < MIB


def test_a_large_upload_goes_to_disk(server: Server) -> None:
    server.get("/", method="POST", body=b"x" * 512 * KIB)
    before = memory_peak(server)
    assert server.get("/", method="POST", body=b"x" * 32 * MIB).body == str(32 * MIB).encode()
    assert memory_peak(server) - before < 2 * MIB  # body_buffer_size is one of them


def test_pipelined_requests_beyond_a_bound_are_not_read(server: Server) -> None:
    server.get("/block")
    before = memory_peak(server)
    with server.connect() as sock:
        sock.setblocking(False)
        sent = send_until_stalled(sock, b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n" * 1000, most=2 * KERNEL_BYTES_MAX)
        assert sent < KERNEL_BYTES_MAX
        assert server.get("/").body == b"0"
    assert memory_peak(server) - before < MIB


def send_until_stalled(sock: socket.socket, data: bytes, most: int) -> int:
    """Send the same again and again, and read nothing, until the peer takes no more; how much it took."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sent = 0
    while sent < most and poll.poll(STALLED_MS):
        sent += sock.send(data[sent % len(data) :])
    return sent
