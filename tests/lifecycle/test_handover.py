"""Connections change workers: from a busy one to an idle one, from a leaving one to who stays."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.server import Serve, Server, suspend, wait_until

#: Workers that run one request at a time each.
KINDS = (("-k", "sync"), ("-k", "gthread", "--threads", "1"))


class Client:
    """A keep-alive connection."""

    def __init__(self, server: Server) -> None:
        self.sock = server.connect()
        self._host = server.addresses[0].removeprefix("http://") if server.addresses[0].startswith("http") else "h"
        self._answers = AnswerReader(self.sock)

    def send(self, path: str, body: bytes = b"") -> None:
        """Send a request without waiting for its answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)

    def read(self) -> list[str]:
        """Read an answer: the worker's pid, our address and port, the server's port, the body."""
        answer = self._answers.read_answer()
        assert answer.status == 200
        return answer.body.decode().split(" ")

    def ask(self, path: str = "/", body: bytes = b"") -> list[str]:
        """Send a request and read its answer."""
        self.send(path, body)
        return self.read()


#: Those that run many.
OTHER_KINDS = (
    ("-k", "gevent"),
    ("-k", "eventlet"),
    ("-k", "tornado"),
    ("-k", "asgi", "--asgi-loop", "asyncio"),
    ("-k", "asgi", "--asgi-loop", "uvloop"),
)


#: Changes between classes that each have a loop of another kind.
CHANGES = (("sync", "asgi"), ("asgi", "tornado"), ("tornado", "gthread"))


def keep_asking(clients: list[Client], turns: int) -> Counter[Client]:
    """Have each client ask for work without pause, until there are so many answers; gives who got how many.

    In one thread: many would share the interpreter's lock out among themselves, and unfairly so.
    """
    answered: Counter[Client] = Counter()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send("/work")
        while sum(answered.values()) < turns:
            for key, _ in selector.select(30):
                key.data.read()
                answered[key.data] += 1
                key.data.send("/work")
    for client in clients:
        client.read()
    return answered


def waiting_to_be_accepted(port: int) -> int:
    """Count the connections in the listen queue of a port: the receive queue of a socket that listens, in proc(5)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A")


@pytest.fixture
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[[Server, str], Client]]:
    """Give connections whose worker is a certain one."""
    with contextlib.ExitStack() as stack:

        def connect(server: Server, pid: str = "") -> Client:
            for _ in range(1000):
                client = Client(server)
                stack.callback(client.sock.close)
                if client.ask()[0] == pid or not pid:
                    return client
            raise AssertionError(f"no connection reached worker {pid}")

        yield connect


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_a_request_behind_a_busy_worker_is_answered_by_an_idle_one(
    serve: Serve, gate: Gate, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "2", *kind, env=gate.env)
    server.wait_for_workers(2)
    quick = client_of(server)
    busy, address, port, server_port, _ = quick.ask()
    slow = client_of(server, busy)
    slow.send("/hold")
    gate.wait_started()
    # The worker that both connections belong to is held, so this can only come from the other one.
    answered = quick.ask(body=b"unread")
    assert answered[0] != busy
    assert answered[1:] == [address, port, server_port, "unread"]
    assert int(port) == quick.sock.getsockname()[1] and int(server_port) == server.port
    gate.release()
    assert slow.read() == ["done"]
    assert quick.ask()[0] != busy, "a connection stays with the worker that has taken it"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_the_end_behind_half_a_request_is_seen_after_a_busy_time(
    serve: Serve, gate: Gate, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", *kind, "--header-timeout", "60", "--keep-alive", "60", env=gate.env)
    slow, leaving = client_of(server), client_of(server)
    slow.send("/hold")
    gate.wait_started()
    leaving.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):  # In this time somebody has begun to look after the busy worker's connections.
        leaving.sock.recv(1)
    leaving.sock.sendall(b"GET / HT")
    leaving.sock.shutdown(socket.SHUT_WR)
    gate.release()
    assert slow.read() == ["done"]
    leaving.sock.settimeout(10)
    assert leaving.sock.recv(1) == b""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_a_request_waits_while_every_worker_is_busy(
    serve: Serve, gate: Gate, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "2", *kind, env=gate.env)
    server.wait_for_workers(2)
    quick = client_of(server)
    first = quick.ask()[0]
    one, other = client_of(server), client_of(server)
    for client in (one, other):
        client.send("/hold")
        gate.wait_started()
    quick.send("/")
    quick.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        quick.sock.recv(1, socket.MSG_PEEK)
    quick.sock.settimeout(None)
    gate.release(2)
    assert quick.read()[0] in {first, *(str(pid) for pid in server.worker_pids())}
    assert one.read() == other.read() == ["done"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_nobody_waits_for_long_while_every_worker_is_busy(
    serve: Serve, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "4", *kind)
    server.wait_for_workers(4)
    clients = [client_of(server) for _ in range(32)]
    answered = keep_asking(clients, turns=40 * len(clients))
    assert min(answered[client] for client in clients) >= 10, sorted(answered.values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_nobody_waits_for_long_beside_a_worker_that_is_held_up(
    serve: Serve, gate: Gate, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "2", *kind, env=gate.env)
    server.wait_for_workers(2)
    slow = client_of(server)
    slow.send("/hold")
    gate.wait_started()
    clients = [client_of(server) for _ in range(32)]
    answered = keep_asking(clients, turns=30 * len(clients))
    gate.release()
    assert slow.read() == ["done"]
    assert min(answered[client] for client in clients) >= 24, sorted(answered.values())


@pytest.mark.parametrize("kind", [*KINDS, *OTHER_KINDS], ids=lambda kind: kind[-1])
def test_a_worker_that_woke_first_does_not_keep_all_connections(
    serve: Serve, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "2", *kind)
    server.wait_for_workers(2)
    first, second = server.worker_pids()
    suspend(second)
    clients = [client_of(server) for _ in range(32)]
    os.kill(second, signal.SIGCONT)

    def is_shared() -> bool:
        for client in clients:
            client.send("/work")
        share = Counter(int(client.read()[0]) for client in clients)
        return min(share[first], share[second]) >= 8

    wait_until(is_shared, "each worker has a part of the connections")


def test_what_a_leaving_worker_accepts_does_not_wait_for_its_requests(
    serve: Serve, gate: Gate, client_of: Callable[..., Client]
) -> None:
    # gthread: the signal reaches it in the middle of a request. A sync worker leaves between two.
    server = serve("whose:app", "-w", "2", "-k", "gthread", "--threads", "1", "--log-level", "debug", env=gate.env)
    leaving, staying = server.wait_for_ready(2)
    slow = client_of(server, str(leaving))
    slow.send("/hold")
    gate.wait_started()
    suspend(staying)
    quick = Client(server)
    with contextlib.closing(quick.sock):
        quick.send("/")
        wait_until(lambda: waiting_to_be_accepted(server.port) == 1, "a connection waits")
        server.signal(signal.SIGTTOU)
        wait_until(lambda: waiting_to_be_accepted(server.port) == 0, "the leaving worker has accepted it")
        os.kill(staying, signal.SIGCONT)
        assert quick.read()[0] == str(staying)
    gate.release()
    assert slow.read() == ["done"]


@pytest.mark.parametrize("kind", [*KINDS, *OTHER_KINDS], ids=lambda kind: kind[-1])
def test_idle_connections_survive_a_reload(
    serve: Serve, client_of: Callable[..., Client], kind: tuple[str, ...]
) -> None:
    server = serve("whose:app", "-w", "2", *kind)
    old = server.wait_for_workers(2)
    clients = [client_of(server) for _ in range(100)]
    asked = [client.ask()[1:] for client in clients]
    server.signal(signal.SIGHUP)
    new = server.wait_for_workers(2, without=old)
    for client, before in zip(clients, asked, strict=True):
        pid, *rest = client.ask()
        assert int(pid) in new and rest == before


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_idle_connections_survive_a_change_of_worker_class(
    serve: Serve, client_of: Callable[..., Client], before: str, after: str
) -> None:
    server = serve("whose:app", "-w", "2", config=f"worker_class = {before!r}")
    old = server.wait_for_workers(2)
    clients = [client_of(server) for _ in range(20)]
    asked = [client.ask()[1:] for client in clients]
    (server.directory / "gunicorn.conf.py").write_text(f"worker_class = {after!r}")
    server.signal(signal.SIGHUP)
    new = server.wait_for_workers(2, without=old)
    for client, answered in zip(clients, asked, strict=True):
        pid, *rest = client.ask()
        assert int(pid) in new and rest == answered


def test_a_connection_without_an_address_changes_workers_too(
    serve: Serve, gate: Gate, client_of: Callable[..., Client], tmp_path: Path
) -> None:
    server = serve("whose:app", "-w", "2", bind=f"unix:{tmp_path}/socket", env=gate.env)
    server.wait_for_workers(2)
    quick = client_of(server)
    busy = quick.ask()[0]
    slow = client_of(server, busy)
    slow.send("/hold")
    gate.wait_started()
    assert quick.ask()[0] != busy
    gate.release()
    assert slow.read() == ["done"]


def test_idle_connections_are_closed_when_the_server_stops(serve: Serve, client_of: Callable[..., Client]) -> None:
    server = serve("whose:app", "-w", "2")
    server.wait_for_workers(2)
    clients = [client_of(server) for _ in range(20)]
    assert server.stop() == 0
    for client in clients:
        assert client.sock.recv(1) == b""
