"""Too much to do: requests that waited too long, that are too many, or that nobody waits for any more."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.server import Serve, Server
from workers.classes import ALL

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
Start = Callable[..., Server]


@pytest.fixture(params=["sync", "gthread", "asgi", "tornado"])
def start(request: pytest.FixtureRequest, serve: Serve, gate: Gate) -> Start:
    """Start a worker that runs one request at a time."""

    def started(*args: str, app: str = "gated:app", **options: object) -> Server:
        arguments = ("-k", request.param, "--threads", "1", "--access-logfile", "-", *args)
        return serve(app, *arguments, env=gate.env, **options)  # type: ignore[arg-type]  # passed on

    return started


def ask(server: Server, path: str) -> tuple[socket.socket, AnswerReader]:
    """Send a request, and leave its answer for later."""
    sock = server.connect()
    sock.sendall(GET % path.encode())
    return sock, AnswerReader(sock)


def test_a_request_that_waited_too_long_is_sent_away(start: Start, gate: Gate) -> None:
    server = start("--queue-timeout", "0.5")
    held, reader = ask(server, "/held")
    gate.wait_started()
    late, answers = ask(server, "/late")
    late.settimeout(0.8)
    with pytest.raises(TimeoutError):
        answers.read_answer()
    gate.release()
    late.settimeout(20)
    answer = answers.read_answer()
    assert (answer.status, answer.header("Retry-After"), answer.header("Connection")) == (503, "1", "close")
    assert reader.read_answer().body == b"done"
    server.wait_for_log(r"1 requests answered 503, the last one of ip=127\.0\.0\.1: .*queue_timeout")
    assert server.get("/free").body == b"done", "whoever does not wait is served"
    for sock in (held, late):
        sock.close()


def test_the_time_of_the_connections_own_requests_is_no_waiting(start: Start, gate: Gate) -> None:
    server = start("--queue-timeout", "0.5")
    with server.connection() as (sock, reader):
        sock.sendall(GET % b"/held" + GET % b"/free")
        gate.wait_started()
        sock.settimeout(0.8)
        with pytest.raises(TimeoutError):
            reader.read_answer()
        gate.release()
        sock.settimeout(20)
        assert [reader.read_answer().status for _ in range(2)] == [200, 200]


def test_a_client_that_left_while_it_waited_costs_no_call(start: Start, gate: Gate) -> None:
    server = start()
    held, reader = ask(server, "/held")
    gate.wait_started()
    gone, patient = server.connect(), server.connect()
    for sock, path in ((gone, b"/gone"), (patient, b"/free?patient")):
        sock.sendall(GET % path)
    gone.settimeout(0.8)
    with pytest.raises(TimeoutError):
        gone.recv(1)
    gone.close()
    gate.release()
    assert reader.read_answer().body == b"done"
    assert AnswerReader(patient).read_answer().body == b"done"
    assert server.get("/free?last").body == b"done"
    for sock in (held, patient):
        sock.close()
    server.wait_for_log(r"/free\?last", stream="stdout")
    assert "/gone" not in server.stdout


@pytest.mark.parametrize("start", ["sync", "gthread", "asgi"], indirect=True)  # Tornado takes it for the end of both
def test_a_client_that_only_ended_its_side_is_answered(start: Start, gate: Gate) -> None:
    server = start()
    held, reader = ask(server, "/held")
    gate.wait_started()
    ended, answers = ask(server, "/free")
    ended.shutdown(socket.SHUT_WR)
    ended.settimeout(0.8)
    with pytest.raises(TimeoutError):
        answers.read_answer()
    gate.release()
    ended.settimeout(20)
    assert answers.read_answer().body == b"done"
    assert reader.read_answer().body == b"done"
    for sock in (held, ended):
        sock.close()


def test_more_than_limit_concurrency_are_sent_away_at_once(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "gthread", "--threads", "1", "--limit-concurrency", "2", env=gate.env)
    held, reader = ask(server, "/held")
    gate.wait_started()
    waiting, answers = ask(server, "/free")
    refused = server.get("/free")
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    gate.release()
    for one in (reader, answers):
        assert one.read_answer().body == b"done"
    assert server.get("/free").body == b"done"
    for sock in (held, waiting):
        sock.close()


# -- deadlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ALL)
def test_the_deadline_of_a_request_is_in_the_environ(serve: Serve, worker_class: str) -> None:
    server = serve("threaded:app", "-k", worker_class)
    watched = worker_class in ("sync", "gthread")
    assert server.get("/deadline?7").body == (b"7.0 True" if watched else b"None None")
    assert server.get("/deadline").body == (b"0.0 True" if watched else b"None None")
    endless = serve("threaded:app", "-k", worker_class, "--timeout", "0")
    assert endless.get("/deadline?7").body == b"None None"


@pytest.mark.parametrize("start", ["sync", "gthread", "asgi"], indirect=True)  # with one thread it is Tornado's loop
def test_a_request_may_take_longer_when_it_says_so(start: Start) -> None:
    server = start("--timeout", "1", app="threaded:app")
    (pid,) = server.worker_pids()
    assert server.get("/spent?2.5").body == b"spent"
    assert server.get("/").body == b"done"
    assert server.worker_pids() == [pid] and "WORKER TIMEOUT" not in server.log


# -- garbage ---------------------------------------------------------------------------------------

CYCLES = """
import gc

class Node:
    alive = 0
    def __init__(self):
        self.self = self
        Node.alive += 1
    def __del__(self):
        Node.alive -= 1

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    Node()
    return [f"{gc.isenabled()} {Node.alive}".encode()]
"""


@pytest.mark.parametrize("start", ["sync", "gthread"], indirect=True)
def test_garbage_is_collected_between_requests(start: Start) -> None:
    server = start("--gc-out-of-band", "5", app="cycles:app", files={"cycles.py": CYCLES})
    with server.connection() as (sock, reader):
        seen = []
        for _ in range(12):
            sock.sendall(GET % b"/")
            seen.append(reader.read_answer().body)
    assert seen == [b"False %d" % (number % 5 + 1) for number in range(12)]
