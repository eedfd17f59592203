"""The gthread worker: requests side by side, limits, late requests, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, is_alive, wait_until

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
REQUESTS = 4


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    """Two threads, for the tests that leave them as they were."""
    return serve_module("threaded:app", "-k", "gthread", "--threads", "2")


def ask(server: Server, path: str) -> tuple[socket.socket, AnswerReader]:
    """Send a request, and leave its answer for later."""
    sock = server.connect()
    sock.sendall(GET % path.encode())
    return sock, AnswerReader(sock)


# -- threads ---------------------------------------------------------------------------------------


def test_as_many_requests_run_side_by_side_as_there_are_threads(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "gthread", "--threads", str(REQUESTS), env=gate.env)
    held = [ask(server, "/") for _ in range(REQUESTS)]
    for _ in held:
        gate.wait_started()
    waiting, reader = ask(server, "/free")
    gate.release(REQUESTS)
    for sock, answers in [*held, (waiting, reader)]:
        assert answers.read_answer().body == b"done"
        sock.close()


def test_threads_turn_a_sync_worker_into_gthread(serve: Serve) -> None:
    server = serve("threaded:app", "--threads", "3")
    server.wait_for_log("Using worker: gthread")
    assert server.get("/multithread").body == b"True"
    assert re.fullmatch(rb"bicorn-[012]", server.get("/thread").body)
    assert server.get("/main").body == b"False", "signals are never late: their thread runs no request"


def test_a_thread_that_waits_for_its_reader_serves_others(serve: Serve) -> None:
    server = serve("threaded:app", "-k", "gthread", "--threads", "1")
    slow = [ask(server, "/stream?slow") for _ in range(5)]
    for sock, _ in slow:
        assert sock.recv(12) == b"HTTP/1.1 200"
    for _ in range(20):
        assert server.get("/").body == b"done"
    for sock, _ in slow:
        sock.close()


def test_an_answer_goes_on_in_its_own_thread_and_context(server: Server) -> None:
    streams = [ask(server, f"/stream?s{number}") for number in range(6)]
    for sock, _ in streams:
        assert sock.recv(9) == b"HTTP/1.1 "  # All of them have begun before any of them is read.
    for number, (sock, reader) in enumerate(streams):
        reader.pending = bytearray(b"HTTP/1.1 ") + reader.pending
        body = reader.read_answer().body
        assert body[-60:].lstrip(b"x").decode().startswith("1 "), "one thread made all of it"
        assert f"('s{number}', " in body[-60:].decode() and body.endswith(b"unset")
        sock.close()


def test_what_a_request_sets_in_its_context_is_its_own(server: Server) -> None:
    with server.connection() as (sock, reader):
        for number in range(20):
            sock.sendall(GET % f"/context?{number}".encode())
            assert reader.read_answer().body == b"unset"


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(b"".join(GET % path for path in (b"/main", b"/multithread", b"/", b"/context?a")))
        assert [reader.read_answer().body for _ in range(4)] == [b"False", b"True", b"done", b"unset"]


def test_connections_beyond_worker_connections_wait_in_the_listen_queue(serve: Serve) -> None:
    server = serve("threaded:app", "-k", "gthread", "--worker-connections", "2", "--keep-alive", "30")
    first, second, third = [ask(server, "/") for _ in range(3)]
    for _, reader in (first, second):
        assert reader.read_answer().body == b"done"
    third[0].settimeout(0.3)
    with pytest.raises(TimeoutError):
        third[1].read_answer()
    third[0].settimeout(20)
    first[0].close()
    assert third[1].read_answer().body == b"done"
    for sock, _ in (second, third):
        sock.close()


@pytest.mark.parametrize("path", ["/fork/exit", "/fork/now"])
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_process_that_a_request_forks_harms_nobody(serve: Serve, worker_class: str, path: str) -> None:
    server = serve("threaded:app", "-k", worker_class, "--access-logfile", "-")
    (pid,) = server.worker_pids()
    for _ in range(5):
        assert server.get(path).body == b"3"
    assert server.get("/").body == b"done"
    assert server.worker_pids() == [pid] and "Traceback" not in server.log
    assert server.stop() == 0
    assert len(server.stdout.splitlines()) == 6, "no line is written twice"


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
@pytest.mark.parametrize(("path", "code"), [("/fork/raise", b"1"), ("/fork/return", b"0")])
def test_a_copy_that_comes_back_from_the_application_ends(
    serve: Serve, worker_class: str, path: str, code: bytes
) -> None:
    server = serve("threaded:app", "-k", worker_class)
    (pid,) = server.worker_pids()
    for _ in range(2):
        assert server.get(path).body == code
    assert server.worker_pids() == [pid]


# -- late requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_late_request_is_answered_for_and_its_worker_replaced(serve: Serve, gate: Gate, threads: str) -> None:
    arguments = ("-k", "gthread", "--threads", threads, "--timeout", "1", "--log-level", "debug")
    server = serve("threaded:app", *arguments, env=gate.env)
    (old,) = server.wait_for_ready(1)
    late, reader = ask(server, "/late?secret")
    gate.wait_started()
    answer = reader.read_answer()
    assert (answer.status, answer.header("Connection")) == (504, "close")
    assert reader.read_to_close() == b""
    late.close()
    # Its request line, and the line of the application where it stands.
    server.wait_for_log(r"WORKER TIMEOUT \(pid:\d+\): GET /late\?secret[\s\S]*threaded\.py\", line \d+, in _held")
    assert server.get("/").body == b"done", "by the other thread, or by the successor"
    server.wait_for_ready(2)
    if threads == "2":  # A worker without a thread left has nothing to stay for.
        late_at = server.log.index("WORKER TIMEOUT")
        assert "Worker exiting" not in server.log[late_at : server.log.index("Booting worker", late_at)]
    gate.release()
    server.wait_for_workers(1, without=[old])
    assert server.get("/").body == b"done"


def test_a_late_answer_that_has_begun_is_broken_off(serve: Serve, gate: Gate) -> None:
    server = serve("threaded:app", "-k", "gthread", "--threads", "2", "--timeout", "1", env=gate.env)
    (old,) = server.worker_pids()
    sock, reader = ask(server, "/begun")
    gate.wait_started()
    received = reader.read_to_close()
    assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"5\r\nbegun\r\n")
    server.wait_for_log("its answer had begun and was broken off")
    gate.release()
    server.wait_for_workers(1, without=[old])
    sock.close()


def test_the_requests_beside_a_late_one_finish(serve: Serve, gate: Gate) -> None:
    server = serve("threaded:app", "-k", "gthread", "--threads", "2", "--timeout", "2", env=gate.env)
    sock, reader = ask(server, "/late")
    gate.wait_started()
    wait_until(lambda: server.get("/").body == b"done" and "WORKER TIMEOUT" in server.log, "it is late")
    other, answers = ask(server, "/stream?beside")
    assert len(answers.read_answer().body) > 200 * 65536
    assert reader.read_answer().status == 504
    gate.release()
    for held in (sock, other):
        held.close()


# -- the end ---------------------------------------------------------------------------------------


def test_max_requests_replaces_workers_without_a_loss(serve: Serve) -> None:
    server = serve("hello:app", "-k", "gthread", "--threads", "4", "--max-requests", "50")
    with load(server, keep_alive=8, fresh=4) as traffic:
        traffic.wait_for(400)
    assert traffic.failures == []
    assert server.log.count("Autorestarting worker") >= 3


def test_a_stop_waits_for_the_requests_of_all_threads(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "gthread", "--threads", "3", env=gate.env)
    held = [ask(server, "/") for _ in range(3)]
    for _ in held:
        gate.wait_started()
    server.signal(signal.SIGTERM)
    server.wait_for_log("Handling signal: term")
    gate.release(3)
    for sock, reader in held:
        assert reader.read_answer().body == b"done"
        sock.close()
    assert server.wait_exit() == 0


@pytest.mark.parametrize("sig", [signal.SIGQUIT, signal.SIGINT])
@pytest.mark.parametrize("path", ["/late", "/spin"])
def test_a_quick_stop_waits_for_no_thread(serve: Serve, gate: Gate, sig: signal.Signals, path: str) -> None:
    server = serve("threaded:app", "-k", "gthread", "--threads", "2", env=gate.env)
    held = [ask(server, path) for _ in range(2)]
    if path == "/late":
        gate.wait_started()
        gate.wait_started()
    assert server.stop(sig, timeout=5) == 0
    assert not re.search("SIG(ABRT|SEGV|KILL)|core|Fatal", server.log), server.log
    for sock, _ in held:
        sock.close()


def test_a_reload_lets_busy_threads_finish(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "gthread", "--threads", "2", "--log-level", "debug", env=gate.env)
    (old,) = server.wait_for_ready(1)
    held = [ask(server, "/") for _ in range(2)]
    for _ in held:
        gate.wait_started()
    server.signal(signal.SIGHUP)
    server.wait_for_ready(2)
    assert server.get("/free").body == b"done"
    gate.release(2)
    for sock, reader in held:
        assert reader.read_answer().body == b"done"
        sock.close()
    server.wait_for_workers(1, without=[old])


def test_a_worker_ends_with_its_arbiter(serve: Serve) -> None:
    server = serve("threaded:app", "-k", "gthread", "--threads", "2")
    (pid,) = server.worker_pids()
    assert server.get("/").body == b"done"
    server.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the worker has ended")


@pytest.mark.parametrize(("path", "name"), [("/exit", "SystemExit"), ("/interrupt", "KeyboardInterrupt")])
def test_an_exit_in_a_thread_ends_the_worker_but_not_its_other_requests(serve: Serve, path: str, name: str) -> None:
    server = serve("failing:app", "-k", "gthread", "--threads", "2")
    (pid,) = server.worker_pids()
    assert server.get(path).status == 500
    server.wait_for_workers(1, without=[pid])
    server.wait_for_log(name)
    assert server.get("/").body == b"fine"


# -- logs ------------------------------------------------------------------------------------------


def test_lines_of_several_threads_are_whole_and_none_is_lost_by_a_rotation(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    arguments = ("--threads", "4", "--access-logfile", str(log), "--access-logformat", "%(m)s %(U)s %(s)s end")
    server = serve("hello:app", "-k", "gthread", *arguments)
    with load(server, keep_alive=6, fresh=2) as traffic:
        traffic.wait_for(100)
        log.rename(tmp_path / "rotated.log")
        server.signal(signal.SIGUSR1)
        wait_until(log.exists, "the log is opened anew")
        traffic.wait_for(100)
    assert server.stop() == 0
    lines = [line for file in (tmp_path / "rotated.log", log) for line in file.read_text().splitlines()]
    assert set(lines) == {"GET / 200 end"} and len(lines) == traffic.answered
