"""Many client connections at once from one process: short ones, or ten thousand that stay open.

Owns       its sockets and the bound on how many exchanges are under way.
Never      measures or judges; it says what was answered.
Invariant  at most `in_flight_max` exchanges are under way, so the server's listen queue never overflows.

Run as `python -m bench.connections <port> <count>` it opens that many keep-alive connections, does one
exchange on each, prints "ready", holds them until its standard input says so, and prints how many the
server had closed by then.
"""

from __future__ import annotations

import resource
import select
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Self

IN_FLIGHT_MAX: Final = 100  # gunicorn's listen queue holds 2048, waitress' and uwsgi's 1024, others 128.
STALL_TIMEOUT_S: Final = 30.0
KEEP_ALIVE_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CLOSE_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

# A source address has about 28,000 ports to one destination (net.ipv4.ip_local_port_range); beyond
# half of that the search for a free one gets slow, so the next loopback address takes over.
_PORTS_PER_SOURCE: Final = 14_000


class ExchangeFailed(Exception):
    """A connection was refused, reset, or closed before its answer was whole."""


@dataclass
class Answer:
    """What has come of an answer so far."""

    received: bytearray = field(default_factory=bytearray)

    def body_if_whole(self) -> bytes | None:
        head, separator, body = bytes(self.received).partition(b"\r\n\r\n")
        if not separator:
            return None
        length = _field(head, b"content-length")
        if length is None:
            raise ExchangeFailed(f"gave an answer without Content-Length: {head[:200]!r}")
        return body if len(body) >= int(length) else None

    def closes(self) -> bool:
        """Whether its head says that the connection ends with it."""
        head, _, _ = bytes(self.received).partition(b"\r\n\r\n")
        return (_field(head, b"connection") or b"").lower() == b"close"


@dataclass
class _Exchange:
    sock: socket.socket
    answer: Answer = field(default_factory=Answer)
    sent: bool = False


class ConnectionSet:
    """Opens `count` connections to one port, does one exchange on each, keeps or closes them."""

    def __init__(
        self,
        port: int,
        count: int,
        request: bytes,
        *,
        keep_open: bool,
        in_flight_max: int,
    ) -> None:
        self._address = ("127.0.0.1", port)
        self._count = count
        self._request = request
        self._keep_open = keep_open
        self._in_flight_max = in_flight_max
        self._opened = 0
        self._poll = select.epoll()
        self._under_way: dict[int, _Exchange] = {}
        self.bodies: list[bytes] = []
        self.held: list[socket.socket] = []

    def run(self) -> None:
        """Returns when every exchange is done."""
        while len(self.bodies) < self._count:
            while self._opened < self._count and len(self._under_way) < self._in_flight_max:
                self._open()
            events = self._poll.poll(STALL_TIMEOUT_S)
            if not events:
                raise ExchangeFailed(f"no answer for {STALL_TIMEOUT_S:.0f} s after {len(self.bodies)} exchanges")
            for descriptor, _ in events:
                self._on_event(self._under_way[descriptor])

    def count_closed(self) -> int:
        """How many of the held connections the server has ended since."""
        closed = 0
        for sock in self.held:
            try:
                closed += sock.recv(1) == b""
            except BlockingIOError:
                continue
            except ConnectionError:
                closed += 1
        return closed

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        # The port is chosen at connect, by the whole 4-tuple, rather than at bind.
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT, which `socket` does not name.
        sock.bind((f"127.0.0.{1 + self._opened // _PORTS_PER_SOURCE}", 0))
        sock.connect_ex(self._address)
        self._opened += 1
        self._under_way[sock.fileno()] = _Exchange(sock)
        self._poll.register(sock.fileno(), select.EPOLLOUT)

    def _on_event(self, exchange: _Exchange) -> None:
        if not exchange.sent:
            exchange.sock.send(self._request)  # Raises what the connect ended with, if it failed.
            exchange.sent = True
            self._poll.modify(exchange.sock.fileno(), select.EPOLLIN)
            return
        received = exchange.sock.recv(65536)
        if not received:
            so_far = bytes(exchange.answer.received)
            raise ExchangeFailed(f"closed a connection before an answer was whole: {so_far!r}")
        exchange.answer.received += received
        body = exchange.answer.body_if_whole()
        if body is not None:
            self._finish(exchange, body)

    def _finish(self, exchange: _Exchange, body: bytes) -> None:
        self.bodies.append(body)
        self._poll.unregister(exchange.sock.fileno())
        del self._under_way[exchange.sock.fileno()]
        if self._keep_open:
            self.held.append(exchange.sock)
        else:
            exchange.sock.close()


class KeepAliveClient:
    """One connection, one exchange after another, each waited for."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), STALL_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def exchange(self, request: bytes = KEEP_ALIVE_REQUEST) -> bytes:
        self._sock.sendall(request)
        answer = Answer()
        while (body := answer.body_if_whole()) is None:
            received = self._sock.recv(65536)
            if not received:
                raise ExchangeFailed("closed a connection that was to be kept alive")
            answer.received += received
        return body


def _field(head: bytes, wanted: bytes) -> bytes | None:
    """The value of a field of an answer's head, by its name in lower case."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return None


def main(port: int, count: int) -> None:
    allow_descriptors(count)
    connections = ConnectionSet(port, count, KEEP_ALIVE_REQUEST, keep_open=True, in_flight_max=IN_FLIGHT_MAX)
    connections.run()
    print("ready", flush=True)
    sys.stdin.readline()
    print(connections.count_closed(), flush=True)


def allow_descriptors(count: int) -> None:
    """Lets this process and those that it starts from now on hold so many connections."""
    needed = count + 500  # The listener, logs, libraries, and the load's own connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (ValueError, PermissionError):
        raise ExchangeFailed(f"needs {needed} descriptors, but `ulimit -Hn` is {hard}") from None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
