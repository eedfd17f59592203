"""Keep-alive clients that ask at a steady pace, beside others that ask for a slow page without pause.

Owns       its sockets and the clock of each request.
Never      lets what is late pile up: a client whose answer took longer than its interval asks again at once,
           and goes on from there.
Invariant  a connection has one request under way.

Run as `python -m bench.paced_clients <port> <clients> <interval ms> <slow clients> <seconds>`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from bench.connections import KEEP_ALIVE_REQUEST, STALL_TIMEOUT_S, Answer, ExchangeFailed
from bench.latencies import print_result

# In this time every paced client has asked several times, so that all workers have got their connections.
_SETTLE_NS: Final = 500_000_000
_SLOW_REQUEST: Final = KEEP_ALIVE_REQUEST.replace(b"GET / ", b"GET /slow ")


@dataclass
class _Client:
    """One client, which opens its connection again where the server closes it."""

    port: int
    request: bytes
    # Time between two requests; 0 asks again at once.
    interval_ns: int
    # What was asked before is not counted.
    counted_ns: int
    due_ns: int
    asked_ns: int = 0
    # None: nothing is under way.
    answer: Answer | None = None
    sock: socket.socket | None = None
    errors: int = 0
    latencies_ns: list[int] = field(default_factory=list)

    def ask(self, poll: select.epoll) -> None:
        self.asked_ns = time.perf_counter_ns()
        self._send(poll)

    def _send(self, poll: select.epoll) -> None:
        self.answer = Answer()
        if self.sock is None:
            self._connect(poll)
        assert self.sock is not None
        # A connection that the server has just closed for idleness is noticed when it is read.
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(self.request)

    def on_readable(self, poll: select.epoll) -> None:
        assert self.sock is not None
        received = b""
        with contextlib.suppress(ConnectionError):
            received = self.sock.recv(65536)
        if not received:
            self._on_close(poll)
            return
        if self.answer is None:
            raise ExchangeFailed(f"answered without being asked: {received[:80]!r}")
        self.answer.received += received
        if self.answer.body_if_whole() is None:
            return
        now_ns = time.perf_counter_ns()
        if self.asked_ns >= self.counted_ns:
            self.latencies_ns.append(now_ns - self.asked_ns)
        if self.answer.closes():
            self._disconnect(poll)
        self.answer = None
        self.due_ns = max(self.due_ns + self.interval_ns, now_ns)

    def _on_close(self, poll: select.epoll) -> None:
        """Idle connections may be closed. One that had a request under way is asked again, and counted."""
        self._disconnect(poll)
        if self.answer is not None:
            self.errors += 1
            self._send(poll)

    def _connect(self, poll: select.epoll) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.port), STALL_TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(self.sock.fileno(), select.EPOLLIN)

    def _disconnect(self, poll: select.epoll) -> None:
        assert self.sock is not None
        poll.unregister(self.sock.fileno())
        self.sock.close()
        self.sock = None


def main(port: int, count: int, interval_ms: int, slow_count: int, seconds: int) -> None:
    start_ns = time.perf_counter_ns()
    counted_ns = start_ns + _SETTLE_NS
    end_ns = counted_ns + seconds * 1_000_000_000
    interval_ns = interval_ms * 1_000_000
    # The slow ones come last: workers that are busy from the start would never be given a quick connection.
    slow = [_Client(port, _SLOW_REQUEST, 0, counted_ns, counted_ns) for _ in range(slow_count)]
    # Spread over the interval: the question is not how a burst is served.
    paced = [
        _Client(port, KEEP_ALIVE_REQUEST, interval_ns, counted_ns, start_ns + index * interval_ns // count)
        for index in range(count)
    ]
    _ask_until(end_ns, [*slow, *paced])
    latencies_ns = [latency for client in paced for latency in client.latencies_ns]
    print_result(latencies_ns, seconds, errors=sum(client.errors for client in (*slow, *paced)))


def _ask_until(end_ns: int, clients: list[_Client]) -> None:
    """Returns when all that was asked before the end is answered: the slowest answers count too."""
    poll = select.epoll()
    while True:
        now_ns = time.perf_counter_ns()
        if now_ns < end_ns:
            _ask_due(clients, poll, now_ns)
        elif not any(client.answer for client in clients):
            return
        if now_ns > end_ns + STALL_TIMEOUT_S * 1e9:
            raise ExchangeFailed(f"no answer for {STALL_TIMEOUT_S:.0f} s")
        by_descriptor = {client.sock.fileno(): client for client in clients if client.sock is not None}
        for descriptor, _ in poll.poll(_pause_s(clients, now_ns, end_ns)):
            by_descriptor[descriptor].on_readable(poll)


def _ask_due(clients: list[_Client], poll: select.epoll, now_ns: int) -> None:
    for client in clients:
        if client.answer is None and client.due_ns <= now_ns:
            client.ask(poll)


def _pause_s(clients: list[_Client], now_ns: int, end_ns: int) -> float:
    """Until the next client is due, or for the last answers."""
    if now_ns >= end_ns:
        return 0.1
    due_ns = min((client.due_ns for client in clients if client.answer is None), default=end_ns)
    return max(0.0, (min(due_ns, end_ns) - now_ns) / 1e9)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:6]))
