"""Stops while clients keep asking: what was begun is answered, and whoever comes later is refused, never reset."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from harness.gate import Gate
from harness.load import load
from harness.proxy import nginx
from harness.server import Server, wait_until

Start = Callable[..., Server]
REQUEST = b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n"


# -- what was there before the signal --------------------------------------------------------------


def test_term_serves_the_listen_queue_and_open_connections_and_then_ends_at_once(lossless: Start, gate: Gate) -> None:
    server = lossless("gated:app", env=gate.env)
    server.wait_for_ready(1)
    with contextlib.ExitStack() as stack:
        kept, kept_reader = stack.enter_context(server.connection())
        kept.sendall(REQUEST.replace(b"/", b"/free", 1))
        assert kept_reader.read_answer().header("Connection") != "close"
        # The first holds the worker, or one of its threads; the others wait behind it, accepted or not.
        waiting = [stack.enter_context(server.connection()) for _ in range(5)]
        for sock, _ in waiting:
            sock.sendall(REQUEST)
        gate.wait_started()
        term(server)
        kept.sendall(REQUEST)
        gate.release(len(waiting) + 1)
        assert [reader.read_answer().body for _, reader in waiting] == [b"done"] * 5
        # A worker that was told before it read the request says `close`; one that was not closes the idle connection.
        assert kept_reader.read_answer().body == b"done"
        assert kept_reader.read_to_close() == b""
        assert [reader.read_to_close() for _, reader in waiting] == [b""] * 5
        done = time.monotonic()
    assert server.wait_exit() == 0
    assert time.monotonic() - done < 5, "the last answer was out, and graceful_timeout is 30 s"


def term(server: Server) -> None:
    """Send TERM, and wait until the workers have been told."""
    server.signal(signal.SIGTERM)
    server.wait_for_log("Handling signal: term")
    # The next signal is taken up in the round after the one that told the workers.
    server.signal(signal.SIGUSR1)
    server.wait_for_log("Handling signal: usr1")


def test_idle_keep_alive_connections_delay_a_stop_by_a_moment_only(lossless: Start) -> None:
    server = lossless("hello:app", "--keep-alive", "60")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock, reader = stack.enter_context(server.connection())
            sock.sendall(REQUEST)
            assert reader.read_answer().header("Connection") != "close"
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 5


# -- what comes while it stops ---------------------------------------------------------------------


def test_term_answers_what_was_begun_and_refuses_what_comes_later(lossless: Start) -> None:
    server = lossless("hello:app", "-w", "2")
    server.wait_for_ready(2)
    with load(server, keep_alive=8, fresh=16, rate=1000) as traffic:
        traffic.wait_for(100)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        wait_until(lambda: len(traffic.failures) > 10, "refusals")
    assert {loss.kind for loss in traffic.failures} == {"refused"}, traffic
    assert traffic.retried == []


@pytest.mark.parametrize("lossless", ["sync", "asgi"], indirect=True)
def test_the_same_on_a_unix_socket(lossless: Start) -> None:
    server = lossless("hello:app", "-b", "unix:s.sock", "-w", "2")
    server.wait_for_ready(2)
    with load(server, keep_alive=8, fresh=16, rate=1000) as traffic:
        traffic.wait_for(100)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        wait_until(lambda: len(traffic.failures) > 10, "refusals")
    assert {loss.kind for loss in traffic.failures} == {"refused"}, traffic
    assert traffic.retried == []


# -- behind a proxy, and with a socket that outlives the server ------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket of the test's own, as systemd holds it for a service."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as made:
        yield made


ACTIVATE = (
    "import os, sys\n"
    "os.dup2(int(os.environ.pop('TEST_LISTENER')), 3)\n"
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'bicorn', *sys.argv[1:]])\n"
)


def activated(lossless: Start, listener: socket.socket) -> Server:
    """Start a server on a socket that outlives it."""
    fd = listener.fileno()
    server = lossless(
        "hello:app",
        "-w",
        "2",
        bind=None,
        launcher=("activate.py",),
        files={"activate.py": ACTIVATE},
        pass_fds=(fd,),
        env={"TEST_LISTENER": str(fd)},
    )
    server.wait_for_ready(2)
    return server


def test_stop_and_start_with_socket_activation_loses_nothing(lossless: Start, listener: socket.socket) -> None:
    server = activated(lossless, listener)
    with load(server, keep_alive=8, fresh=8, rate=600) as traffic:
        for _ in range(3):
            traffic.wait_for(100)
            assert server.stop() == 0
            server = activated(lossless, listener)
        traffic.wait_for(100)
    assert traffic.failures == []
    assert traffic.retried == []


@pytest.mark.parametrize("lossless", ["sync", "gevent", "asgi"], indirect=True)
def test_nginx_sees_nothing_of_a_stop_and_start(lossless: Start, listener: socket.socket) -> None:
    server = activated(lossless, listener)
    host, port = listener.getsockname()
    with nginx(f"{host}:{port}") as proxy, load(proxy.address, keep_alive=8, fresh=8, rate=400) as traffic:
        for _ in range(2):
            traffic.wait_for(100)
            assert server.stop() == 0
            server = activated(lossless, listener)
        traffic.wait_for(100)
    assert traffic.failures == [], proxy.errors


@pytest.mark.parametrize("lossless", ["sync", "gthread", "asgi"], indirect=True)
def test_nginx_sees_nothing_of_a_reload(lossless: Start) -> None:
    server = lossless("hello:app", "-w", "2")
    server.wait_for_ready(2)
    with nginx(f"127.0.0.1:{server.port}") as proxy, load(proxy.address, keep_alive=8, fresh=8, rate=400) as traffic:
        for _ in range(3):
            traffic.wait_for(100)
            old = server.worker_pids()
            server.signal(signal.SIGHUP)
            server.wait_for_workers(2, without=old)
        traffic.wait_for(100)
    assert traffic.failures == []
    assert "upstream" not in proxy.errors
