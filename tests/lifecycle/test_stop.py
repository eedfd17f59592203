"""The ends of a server: graceful, quick, hurried, and by death of the arbiter."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.server import Serve, Server, is_alive, wait_until
from workers.classes import ALL

Start = Callable[..., Server]
REQUEST = b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_idle_server_stops_at_once(start: Start, sig: signal.Signals) -> None:
    server = start("hello:app", "-w", "2")
    server.get("/")
    workers = server.wait_for_workers(2)
    begun = time.monotonic()
    assert server.stop(sig) == 0
    assert time.monotonic() - begun < 5
    assert not any(is_alive(pid) for pid in workers)
    assert f"Handling signal: {sig.name[3:].lower()}" in server.log
    assert server.log.rstrip().endswith("Shutting down: Master")


def test_a_request_in_flight_is_answered_after_term(start: Start, gate: Gate) -> None:
    server = start("gated:app", env=gate.env)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        gate.release()
        assert AnswerReader(sock).read_answer().body == b"done"
    assert server.wait_exit() == 0


def test_quit_does_not_wait_for_a_request(start: Start, gate: Gate) -> None:
    server = start("gated:app", "--graceful-timeout", "60", env=gate.env)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        assert server.stop(signal.SIGQUIT, timeout=10) == 0


def test_a_worker_that_misses_graceful_timeout_is_killed(start: Start, gate: Gate) -> None:
    server = start("gated:app", "--graceful-timeout", "1", env=gate.env)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        pid = server.wait_for_workers(1)[0]
        assert server.stop(timeout=10) == 0
    assert f"Worker (pid:{pid}) was sent SIGKILL!" in server.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries_a_graceful_stop(start: Start, gate: Gate, second: signal.Signals) -> None:
    server = start("gated:app", "--graceful-timeout", "60", env=gate.env)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        server.signal(second)
        assert server.wait_exit(10) == 0
    assert "Quick shutdown requested" in server.log


def test_ctrl_c_reaches_the_whole_group_and_is_quiet(start: Start) -> None:
    server = start("hello:app", "-w", "3")
    server.get("/")
    server.wait_for_workers(3)
    server.signal_group(signal.SIGINT)
    assert server.wait_exit(10) == 0
    assert not re.search("Traceback|ERROR|WARNING", server.log), server.log


def test_workers_follow_a_killed_arbiter(start: Start) -> None:
    server = start("hello:app", "-w", "2")
    server.get("/")
    workers = server.wait_for_workers(2)
    server.signal(signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in workers), "the end of the workers", timeout=5)


@pytest.mark.parametrize("worker_class", ALL)
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_an_application_that_is_being_loaded(
    serve: Serve, worker_class: str, sig: signal.Signals
) -> None:
    # As for a database that does not answer: with gevent and eventlet in their hub, where the signal then comes.
    app = "import socket\nours, theirs = socket.socketpair()\nprint('waiting', flush=True)\nours.recv(1)\n"
    server = serve("mine:app", "-k", worker_class, "--graceful-timeout", "60", files={"mine.py": app})
    server.wait_for_log("waiting", stream="stdout")
    assert server.stop(sig, timeout=10) == 0
    assert "was sent" not in server.log
    assert "Traceback" not in server.log


def test_a_log_rotation_does_not_kill_a_worker_that_ends(start: Start) -> None:
    # The interpreter takes handlers back before it frees what modules hold, so this signal comes after that.
    config = """
import os, signal, sys
class Last:
    def __init__(self):
        self.write, self.kill, self.pid, self.signum = os.write, os.kill, os.getpid(), signal.SIGUSR1
    def __del__(self):
        self.write(2, b"the last object goes\\n")
        self.kill(self.pid, self.signum)
def post_worker_init(worker):
    sys.last = Last()
"""
    server = start("hello:app", config=config)
    server.get("/")
    assert server.stop() == 0
    assert "the last object goes" in server.log
    assert "was sent" not in server.log
