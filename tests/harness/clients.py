"""Clients in a process of their own: they keep asking one address until they are told to stop, and report each loss.

Run as a program by harness.load, with a Plan as JSON in its argument; it needs nothing but the standard library.

Owns       the clients' sockets, the pace, and the verdict on each request.
Never      asks again for a request that may have reached an application, but for the one case that RFC 9112 allows.
Invariant  every request that was begun ends as an answer, a failure, or a retry which itself ends as one of them.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from typing import Any

RECEIVE_BYTES = 65536
#: How often what was counted goes to the parent.
REPORT_INTERVAL_S = 0.02
#: A unix socket whose listen queue is full says so at once, where TCP waits.
QUEUE_FULL_PAUSE_S = 0.01
#: Longer bodies are counted by their beginning.
BODY_BYTES_MAX = 200
#: What a loss is called by the error of its socket. A unix socket whose file has gone refuses as well.
KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the clients do."""

    address: str  # http://host:port or unix:path
    path: str
    keep_alive: int  # clients that keep their connection as long as the server does
    fresh: int  # clients that open a connection for each request
    rate: float  # requests a second, of all clients together
    timeout: float  # seconds for a request, from connect() to the last byte


@dataclasses.dataclass(frozen=True)
class Loss:
    """A request that was not answered as it should be."""

    at: float  # seconds of the monotonic clock, which is the same one in every process
    kind: str  # refused, reset, closed, short, timeout, malformed, status 503, ...
    client: str  # keep-alive or fresh
    request: str  # its name: the value of X-Request
    connection: int  # which request of its connection it was, from 1
    received: str  # the beginning of what came of the answer


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer, and whether another request may follow it on the connection."""

    status: int
    body: bytes
    keeps: bool


def parse_answer(data: bytes, *, ended: bool) -> Answer | None:
    """Give the answer if it is whole, None if more has to come; ValueError if it is none, or has more than it says."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise ValueError(f"not a status line: {lines[0]!r}")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = _body(fields, rest, ended=ended)
    keeps = fields.get("connection", "").lower() != "close" and version == "HTTP/1.1"
    return None if body is None else Answer(int(status), body, keeps)


def _body(fields: dict[str, str], rest: bytes, *, ended: bool) -> bytes | None:
    if "transfer-encoding" in fields:
        return _chunks(rest)
    if "content-length" not in fields:
        return rest if ended else None
    length = int(fields["content-length"])
    if len(rest) > length:
        raise ValueError(f"{len(rest) - length} bytes after the answer")
    return rest if len(rest) == length else None


def _chunks(rest: bytes) -> bytes | None:
    body = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        size = int(line, 16) if found else 0
        if not found or len(rest) < size + 2:
            return None
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk does not end in CRLF")
        if size == 0:
            return body
        body, rest = body + rest[:size], rest[size + 2 :]


class Report:
    """What goes to the parent, as lines of JSON."""

    def __init__(self) -> None:
        self._bodies: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._slowest = 0.0
        self._due = 0.0

    def answered(self, body: bytes, seconds: float) -> None:
        """Count a good answer."""
        self._bodies[body[:BODY_BYTES_MAX].decode("latin-1")] += 1
        self._slowest = max(self._slowest, seconds)

    def count(self, what: str) -> None:
        """Count something else."""
        self._counts[what] += 1

    def lost(self, kind: str, loss: Loss) -> None:
        """Tell of a failure or a retry at once."""
        self._write({kind: dataclasses.asdict(loss)})

    def flush(self, now: float) -> None:
        """Tell what was counted since the last time, if it is time."""
        if now >= self._due and (self._bodies or self._counts):
            self._write({"bodies": self._bodies, "counts": self._counts, "slowest": self._slowest})
            self._bodies, self._counts, self._due = Counter(), Counter(), now + REPORT_INTERVAL_S

    @staticmethod
    def _write(record: dict[str, Any]) -> None:
        # One write a line, and the pipe's reader is a thread that does nothing else.
        os.write(1, json.dumps(record).encode() + b"\n")


class Client:
    """One client: at rest, or with one request under way."""

    def __init__(self, plan: Plan, number: int, start: float, clients: Clients) -> None:
        self._plan = plan
        self._number = number
        self._clients = clients
        self._keeps = number < plan.keep_alive
        self._interval = (plan.keep_alive + plan.fresh) / plan.rate
        self._sock: socket.socket | None = None
        self._answers = 0  # on this connection
        self._requests = 0
        self._is_retry = False
        self._to_send = b""
        self._received = b""
        self._begun = 0.0
        self.is_busy = False
        self.due = start + number / plan.rate  # when something has to be done without an event

    @property
    def _kind(self) -> str:
        return "keep-alive" if self._keeps else "fresh"

    # -- time ----------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Do what is due: the next request, another try to connect, or giving up."""
        if self.is_busy and now >= self._begun + self._plan.timeout:
            self._lose("timeout")
        elif self.is_busy:
            self._connect()
        else:
            self._requests += 1
            self._begin(now)

    def _begin(self, now: float) -> None:
        name = f"{self._number}-{self._requests}"
        host = "load.example"
        keep = "" if self._keeps else "Connection: close\r\n"
        self._to_send = f"GET {self._plan.path} HTTP/1.1\r\nHost: {host}\r\nX-Request: {name}\r\n{keep}\r\n".encode()
        self._received, self._begun, self.is_busy = b"", now, True
        self.due = now + self._plan.timeout
        if self._sock is None:
            self._connect()
        else:
            self._send()

    def _rest(self) -> None:
        now = time.monotonic()
        self.is_busy = self._is_retry = False
        # The pace is kept, but what a wait has cost is not made up for by a burst.
        self.due = max(self._begun + self._interval, now)

    # -- the connection ------------------------------------------------------------------------

    def _connect(self) -> None:
        address = self._plan.address
        is_unix = address.startswith("unix:")
        target: Any = address.removeprefix("unix:") if is_unix else _host_and_port(address)
        family = socket.AF_UNIX if is_unix else socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        error = sock.connect_ex(target)
        if error == errno.EAGAIN:
            sock.close()
            self.due = time.monotonic() + QUEUE_FULL_PAUSE_S
            return
        self.due = self._begun + self._plan.timeout
        self._sock, self._answers = sock, 0
        if error not in (0, errno.EINPROGRESS):
            self._fail(OSError(error, os.strerror(error)))
            return
        self._clients.watch(self, sock)

    def on_event(self, mask: int) -> None:
        """The socket can be read or written."""
        assert self._sock is not None, "only open sockets are watched"
        if not self.is_busy:
            self._leave_idle()
        elif mask & selectors.EVENT_WRITE and self._to_send:
            self._send()
        elif mask & selectors.EVENT_READ:
            self._receive()

    def _leave_idle(self) -> None:
        # No byte of a request had been sent, so nothing was lost (RFC 9112, 9.5). An answer here belongs to nobody.
        assert self._sock is not None
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except OSError:
            self._clients.report.count("idle_reset")
        else:
            self._clients.report.count("unasked" if data else "idle_closed")
        self._close()

    def _send(self) -> None:
        assert self._sock is not None
        try:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            self._to_send = self._to_send[self._sock.send(self._to_send) :]
        except BlockingIOError:
            pass
        except OSError as failure:
            self._fail(failure)
            return
        self._clients.watch(self, self._sock, writing=bool(self._to_send))

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as failure:
            self._fail(failure)
            return
        self._received += data
        try:
            answer = parse_answer(self._received, ended=not data)
        except ValueError:
            self._lose("malformed")
            return
        if answer is not None:
            self._take(answer)
        elif not data:
            self._lose("short" if self._received else "closed")

    def _close(self) -> None:
        if self._sock is not None:
            self._clients.forget(self._sock)
            self._sock.close()
            self._sock = None

    # -- the verdict ---------------------------------------------------------------------------

    def _take(self, answer: Answer) -> None:
        self._answers += 1
        if answer.status != 200:
            self._lose(f"status {answer.status}")
            return
        self._clients.report.answered(answer.body, time.monotonic() - self._begun)
        if not (self._keeps and answer.keeps):
            self._close()
        self._rest()

    def _fail(self, error: OSError) -> None:
        kinds = {
            errno.ECONNREFUSED: "refused",
            errno.ENOENT: "refused",
            errno.ECONNRESET: "reset",
            errno.EPIPE: "reset",
        }
        self._lose(kinds.get(error.errno or 0, f"error {error}"))

    def _lose(self, kind: str) -> None:
        """Note what became of the request, and ask once more where RFC 9112 (9.3.1) lets a client do so."""
        now = time.monotonic()
        received = self._received[:BODY_BYTES_MAX].decode("latin-1")
        name = f"{self._number}-{self._requests}"
        loss = Loss(now, kind, self._kind, name, self._answers + 1, received)
        # A GET on a connection that had served and was closed before a byte of this answer: the server may have
        # closed it while it was idle, and the close and the request passed each other.
        may_retry = kind in ("closed", "reset") and self._answers and not received and not self._is_retry
        self._clients.report.lost("retried" if may_retry else "failure", loss)
        self._close()
        if may_retry:
            self._is_retry = True
            self._begin(now)
        else:
            self._rest()


def _host_and_port(address: str) -> tuple[str, int]:
    host, port = address.split("://", 1)[1].rsplit(":", 1)
    return host.strip("[]"), int(port)


class Clients:
    """All clients, in one loop."""

    def __init__(self, plan: Plan) -> None:
        self.report = Report()
        self._selector = selectors.DefaultSelector()
        start = time.monotonic()
        self._clients = [Client(plan, number, start, self) for number in range(plan.keep_alive + plan.fresh)]

    def watch(self, client: Client, sock: socket.socket, *, writing: bool = True) -> None:
        """Tell the client when its socket is ready."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        try:
            self._selector.modify(sock, events, client)
        except KeyError:
            self._selector.register(sock, events, client)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching; a socket that could not connect at once never was watched."""
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def run(self, control: int) -> None:
        """Ask until `control` is closed; then wait for the answers to what was asked."""
        self._selector.register(control, selectors.EVENT_READ, None)
        is_stopping = False
        while not (is_stopping and not any(client.is_busy for client in self._clients)):
            now = time.monotonic()
            awaited = [client for client in self._clients if client.is_busy or not is_stopping]
            wake_at = min(client.due for client in awaited)
            for key, mask in self._selector.select(min(max(0.0, wake_at - now), REPORT_INTERVAL_S)):
                if key.data is None:
                    is_stopping = True
                    self._selector.unregister(control)
                else:
                    key.data.on_event(mask)
            now = time.monotonic()
            for client in self._clients:
                if now >= client.due and (client.is_busy or not is_stopping):
                    client.on_time(now)
            self.report.flush(now)
        self.report.flush(float("inf"))


if __name__ == "__main__":
    Clients(Plan(**json.loads(sys.argv[1]))).run(control=0)
