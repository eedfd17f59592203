"""A worker that is fed what nobody should send goes on serving, with the same memory, descriptors and threads."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.server import DEADLINE_S, Serve, Server, wait_until
from soak.mutations import payloads

#: Connections open at once.
BATCH = 32

#: The statuses of DESIGN's refusals, and what the application answers. No 500: nothing of this may reach that.
STATUSES = {100, 200, 400, 413, 414, 417, 431, 501, 505}

#: What the allocators of C, Python and Rust may keep after the warm-up; in the long run a leak of 10 bytes a request
#: is above it.
GROWTH_BYTES_MAX = 1_000_000

#: A worker at rest has its standard streams, listener, epoll, pipes to the arbiter, and a connection just closing.
DESCRIPTORS_AT_REST = 20

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    descriptors: int
    threads: int
    resident_bytes: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """Ask the kernel."""
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(descriptors, int(fields["Threads"]), int(fields["VmRSS"].split()[0]) * 1024)


@pytest.mark.parametrize(
    "count", [pytest.param(5_000, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.soak)]
)
def test_mutated_requests_leave_no_trace(serve: Serve, count: int) -> None:
    # As nobody's proxy: a trusted one may send a SCRIPT_NAME that does not fit, which is a 500 in Gunicorn too.
    server = serve("seen:app", "--keep-alive", "5", "--forwarded-allow-ips", "192.0.2.1")
    (pid,) = server.worker_pids()
    statuses: Counter[int] = Counter()
    feed(server, payloads(seed=1, count=max(2_000, count // 10)), statuses)
    before = settled(server, pid)
    feed(server, payloads(seed=2, count=count), statuses)
    after = settled(server, pid, like=before)
    assert set(statuses) <= STATUSES, statuses
    assert statuses[200] > count / 4 and statuses[400] > count / 4, statuses
    assert server.get("/").status == 200
    assert server.worker_pids() == [pid] and server.log.count("Booting worker") == 1
    assert after.resident_bytes - before.resident_bytes < GROWTH_BYTES_MAX, (before, after)


def settled(server: Server, pid: int, like: Footprint | None = None) -> Footprint:
    """The footprint once it answers again and holds no more descriptors than it did."""
    assert server.get("/").status == 200
    most = like.descriptors if like is not None else DESCRIPTORS_AT_REST
    wait_until(lambda: Footprint.of(pid).descriptors <= most, lambda: f"{Footprint.of(pid)} after {like}")
    found = Footprint.of(pid)
    assert like is None or found.threads == like.threads
    return found


def feed(server: Server, source: Iterator[bytes], statuses: Counter[int]) -> None:
    """Send every payload on a connection of its own, many at a time, and read all that comes back."""
    port = server.port
    while batch := list(itertools.islice(source, BATCH)):
        with contextlib.ExitStack() as stack:
            open_ = [(stack.enter_context(connect(port)), data) for data in batch]
            for sock, data in open_:
                # A server that has refused the first bytes may close before the last.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
            for sock, data in open_:
                count_statuses(sock, data, statuses)


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def count_statuses(sock: socket.socket, data: bytes, statuses: Counter[int]) -> None:
    """Every byte that comes back belongs to a whole answer."""
    reader = AnswerReader(sock)
    with contextlib.suppress(ConnectionResetError):
        reader.pending = bytearray(reader.read_to_close())
    while reader.pending:
        # The application answers HEAD and CONNECT by a field, because there is no body to answer in; and what was
        # refused ends the connection.
        head, _, rest = reader.pending.partition(b"\r\n\r\n")
        has_no_body = b"\r\nX-Seen:" in head or (b"\r\nConnection: close" in head and not rest and b"HEAD " in data)
        try:
            statuses[reader.read_answer("HEAD" if has_no_body else "GET").status] += 1
        except AssertionError as error:
            raise AssertionError(f"not a whole answer to {data!r}") from error


@pytest.mark.parametrize("how", ["request", "silent", "half", "keep-alive"])
def test_short_connections_leave_no_trace(serve: Serve, how: str) -> None:
    server = serve("hello:app", "--keep-alive", "5")
    (pid,) = server.worker_pids()
    data = {"request": GET, "silent": b"", "half": GET[:20], "keep-alive": GET.replace(b"close", b"keep-alive")}[how]
    open_and_close(server, data, 200)
    before = settled(server, pid)
    open_and_close(server, data, 2_000)
    after = settled(server, pid, like=before)
    assert after.resident_bytes - before.resident_bytes < GROWTH_BYTES_MAX
    assert server.worker_pids() == [pid]


def open_and_close(server: Server, data: bytes, count: int) -> None:
    port = server.port
    for _ in range(count):
        with connect(port) as sock:
            sock.sendall(data)
            if data.endswith(b"\r\n\r\n"):
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
