"""Workers whose interpreter somebody holds and does not give back: what becomes of all their connections."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.server import DEADLINE_S, Serve, Server, suspend

LOOPS = (("asgi", "--asgi-loop", "uvloop"), ("asgi", "--asgi-loop", "asyncio"))
#: In these, whoever does not let go holds up all others.
COOPERATIVE = (("gevent",), ("eventlet",), *LOOPS, ("tornado",))
#: Whoever is stuck in C code there has others beside it.
SHARED = (("gthread", "--threads", "4"), *COOPERATIVE)
KINDS = (("sync",), ("gthread", "--threads", "1"), *SHARED)
#: Each way of watching, once.
ONE_OF_EACH = (("sync",), ("gthread", "--threads", "4"), ("gevent",), LOOPS[0], ("tornado",))


def name_of(kind: tuple[str, ...]) -> str:
    return "-".join(word for word in kind if not word.startswith("--"))


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode()


def start(serve: Serve, kind: tuple[str, ...], gate: Gate, config: str | None = None) -> tuple[Server, int]:
    app = {"asgi": "asgi", "tornado": "make_tornado()"}.get(kind[0], "app")
    server = serve(f"stuck:{app}", "-k", *kind, "-t", "1", "--keep-alive", "20", config=config, env=gate.env)
    (stuck,) = server.wait_for_workers(1)
    return server, stuck


def assert_504_and_end(sock: socket.socket, method: str = "GET") -> None:
    """The answer is 504, and nothing follows it."""
    answers = AnswerReader(sock)
    answer = answers.read_answer(method)
    assert (answer.status, answer.header("Connection")) == (504, "close")
    assert answers.read_to_close() == b""


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_idle_connections_go_to_the_next_worker(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, stuck = start(serve, kind, gate)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connection()) for _ in range(5)]
        for sock, answers in idle:
            sock.sendall(request("/"))
            assert answers.read_answer().body == b"alive"
        with server.connect() as hanging:
            hanging.sendall(request("/hang"))
            assert_504_and_end(hanging)
        server.wait_for_workers(1, without=[stuck])
        for sock, answers in idle:
            sock.sendall(request("/"))
            assert answers.read_answer().body == b"alive"


@pytest.mark.parametrize("kind", SHARED, ids=name_of)
def test_requests_that_go_down_with_another_are_answered(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, stuck = start(serve, kind, gate)
    with server.connect() as waiting, server.connect() as begun, server.connect() as hanging:
        waiting.sendall(request("/wait"))
        gate.wait_started()
        begun.sendall(request("/begin"))
        gate.wait_started()
        hanging.sendall(request("/hang", "HEAD"))
        assert_504_and_end(hanging, "HEAD")
        assert_504_and_end(waiting)
        # What has begun cannot be answered again: the connection ends, and too early.
        sent = AnswerReader(begun).read_to_close()
        assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert sent.endswith(b"\r\n\r\nbegun")
    server.wait_for_workers(1, without=[stuck])
    assert server.get("/").body == b"alive"


@pytest.mark.parametrize("kind", COOPERATIVE, ids=name_of)
def test_requests_that_go_down_with_one_that_computes_for_ever_are_answered(
    serve: Serve, gate: Gate, kind: tuple[str, ...]
) -> None:
    server, stuck = start(serve, kind, gate)
    with server.connect() as waiting, server.connect() as spinning, server.connection() as (idle, answers):
        idle.sendall(request("/"))
        assert answers.read_answer().body == b"alive"
        waiting.sendall(request("/wait"))
        gate.wait_started()
        spinning.sendall(request("/spin"))
        assert_504_and_end(spinning)
        assert_504_and_end(waiting)
        idle.sendall(request("/"))
        assert answers.read_answer().body == b"alive"
    server.wait_for_workers(1, without=[stuck])


@pytest.mark.parametrize("kind", COOPERATIVE, ids=name_of)
def test_an_aborted_worker_ends_by_itself_after_its_hooks(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    config = (
        "def worker_abort(worker):\n    print('aborting', worker.pid, flush=True)\n"
        "def worker_exit(server, worker):\n    print('leaving', worker.pid, flush=True)\n"
    )
    server, stuck = start(serve, kind, gate, config)
    with server.connect() as computing:
        computing.sendall(request("/spin"))
        assert_504_and_end(computing)
    server.wait_for_log(rf"\[ERROR\] Worker \(pid:{stuck}\) exited with code 1\.")
    server.wait_for_log(rf"aborting {stuck}\nleaving {stuck}\n", stream="stdout")
    server.wait_for_workers(1, without=[stuck])
    assert "SIGKILL" not in server.log


@pytest.mark.parametrize("kind", ONE_OF_EACH, ids=name_of)
def test_half_a_request_is_answered_as_well(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, stuck = start(serve, kind, gate)
    with server.connect() as half, server.connect() as hanging:
        half.sendall(b"POST /body HTTP/1.1\r\nHost: test.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert AnswerReader(half).read_answer().status == 100
        hanging.sendall(request("/hang"))
        assert_504_and_end(hanging)
        assert_504_and_end(half)
    server.wait_for_workers(1, without=[stuck])


@pytest.mark.parametrize("kind", LOOPS, ids=name_of)
def test_a_websocket_is_told_nothing_that_is_no_frame(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, stuck = start(serve, kind, gate)
    with server.connection() as (sock, answers), server.connect() as hanging:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert answers.read_answer().status == 101
        hanging.sendall(request("/hang"))
        assert_504_and_end(hanging)
        assert answers.read_to_close() == b""
    server.wait_for_workers(1, without=[stuck])


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_an_application_that_comes_back_late_answers_once(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, stuck = start(serve, kind, gate)
    with server.connect() as late:
        late.sendall(request("/stay/1.5"))  # About when others answer for it.
        answers = AnswerReader(late)
        answer = answers.read_answer()
        assert answer.status == 504
        assert answers.read_to_close() == b""
    server.wait_for_workers(1, without=[stuck])


@pytest.mark.parametrize("kind", ONE_OF_EACH, ids=name_of)
def test_a_server_that_was_frozen_goes_on(serve: Serve, gate: Gate, kind: tuple[str, ...]) -> None:
    server, worker = start(serve, kind, gate)
    with server.connection() as (held, answers):
        held.sendall(request("/hold"))
        gate.wait_started()
        for pid in (server.pid, worker):
            suspend(pid)
        wait_out(held)
        for pid in (worker, server.pid):
            os.kill(pid, signal.SIGCONT)
        gate.release()
        assert answers.read_answer().body == b"alive"
    assert server.worker_pids() == [worker]


#: Holds the arbiter between its rest and its next look at the workers, in the middle of what a signal means.
HOLDING = """
import stuck

def nworkers_changed(server, new, old):
    if old is not None and new > old:
        stuck.hold("HOOK_GATE")
"""


def test_a_server_that_was_frozen_in_the_middle_of_something_goes_on(serve: Serve, gate: Gate, tmp_path: Path) -> None:
    (hooks := tmp_path / "hooks").mkdir()
    hook = Gate(hooks)
    server = serve("stuck:app", "-t", "1", config=HOLDING, env={**gate.env, "HOOK_GATE": str(hooks)})
    (worker,) = server.wait_for_workers(1)
    with server.connection() as (held, answers):
        held.sendall(request("/hold"))
        gate.wait_started()
        suspend(worker)
        server.signal(signal.SIGTTIN)
        hook.wait_started()
        wait_out(held)
        hook.release()
        server.wait_for_log("Booting worker", count=2)  # It has looked at its workers.
        os.kill(worker, signal.SIGCONT)
        gate.release()
        assert answers.read_answer().body == b"alive"
    assert worker in server.wait_for_workers(2)
    assert "WORKER TIMEOUT" not in server.log
    hook.close()


def wait_out(held: socket.socket) -> None:
    """Wait until the worker's time is over, which is a second, and its watch would have spoken, half a second later."""
    held.settimeout(2.2)
    with pytest.raises(TimeoutError):
        held.recv(1)
    held.settimeout(DEADLINE_S)
