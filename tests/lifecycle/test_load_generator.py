"""The load itself: what it says about a server must be true, or no test that counts losses is worth anything."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from harness.load import load
from harness.server import DEADLINE_S, Serve, wait_until

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSING = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Scripted:
    """A server that serves one connection after another: request by request what the script says."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.script: list[bytes | str] = []
        self.done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def play(self, *script: bytes | str) -> None:
        """Answer the next requests by these: bytes to send, or `close` or `reset` instead; then the good answer."""
        self.done.clear()
        self.script.extend(script)
        assert self.done.wait(DEADLINE_S)

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                while sock.recv(65536) and self._answer(sock):
                    pass

    def _answer(self, sock: socket.socket) -> bool:
        if not self.script:
            self.done.set()
        step = self.script.pop(0) if self.script else GOOD
        if step == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(step, str):
            return False
        sock.sendall(step)
        return step.startswith(GOOD)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server that does what the test says."""
    made = Scripted()
    yield made
    made.close()


@pytest.mark.parametrize("step", ["close", "reset"])
def test_a_close_that_passes_a_request_on_a_connection_that_served_is_retried(scripted: Scripted, step: str) -> None:
    with load(scripted.address, keep_alive=1, fresh=0) as traffic:
        scripted.play(step)
        traffic.wait_for(2)
    assert traffic.failures == []
    assert [loss.kind for loss in traffic.retried] == ["closed" if step == "close" else "reset"]
    assert traffic.retried[0].connection > 1


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (["close", "close"], "closed"),
        (["reset", "reset"], "reset"),
        ([GOOD[:20]], "short"),
        ([GOOD[:-1]], "short"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], "status 503"),
        ([GOOD + b"more"], "malformed"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], "short"),
    ],
)
def test_a_lost_request_is_named(scripted: Scripted, script: list[bytes | str], kind: str) -> None:
    with load(scripted.address, keep_alive=1, fresh=0) as traffic:
        begun = time.monotonic()
        scripted.play(*script)
        traffic.wait_for(2)
    (loss,) = traffic.failures
    assert (loss.kind, loss.client) == (kind, "keep-alive")
    assert begun < loss.at < time.monotonic()


def test_the_first_request_of_a_connection_is_not_retried(scripted: Scripted) -> None:
    with load(scripted.address, keep_alive=0, fresh=1) as traffic:
        scripted.play("reset")
        traffic.wait_for(2)
    assert [(loss.kind, loss.client) for loss in traffic.failures] == [("reset", "fresh")]
    assert traffic.retried == []


def test_connection_close_on_an_answer_loses_nothing(scripted: Scripted) -> None:
    with load(scripted.address, keep_alive=1, fresh=0) as traffic:
        scripted.play(CLOSING, CLOSING)
        traffic.wait_for(2)
    assert (traffic.failures, traffic.retried) == ([], [])


def test_a_server_that_has_gone_refuses(serve: Serve) -> None:
    server = serve("hello:app")
    with load(server, keep_alive=2, fresh=2) as traffic:
        server.kill()
        wait_until(lambda: {loss.client for loss in traffic.failures} == {"fresh", "keep-alive"}, "failures")
    assert {loss.kind for loss in traffic.failures} <= {"refused", "reset", "closed"}


def test_silence_is_a_timeout() -> None:
    # The kernel accepts into the queue, and nobody answers but for the first.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        first = threading.Thread(target=answer_one, args=(listener,))
        first.start()
        with load(address, keep_alive=0, fresh=1, timeout=0.5) as traffic:
            first.join()
            wait_until(lambda: traffic.failures, "a failure")
    assert {loss.kind for loss in traffic.failures} == {"timeout"}


def answer_one(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.recv(65536)
        sock.sendall(CLOSING)


def test_the_pace_is_kept(serve: Serve) -> None:
    server = serve("hello:app")
    with load(server, keep_alive=4, fresh=4, rate=200) as traffic:
        begun = time.monotonic()
        traffic.wait_for(200)
        assert 0.8 < time.monotonic() - begun < 5
    assert (traffic.failures, traffic.retried) == ([], [])
    assert traffic.bodies == {b"Hello, world!": traffic.answered}


def test_unix_sockets_are_asked_as_well(serve: Serve) -> None:
    server = serve("hello:app", "-b", "unix:s.sock")
    with load(server) as traffic:
        traffic.wait_for(50)
    assert traffic.failures == []
