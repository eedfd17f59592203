"""Too much to do for an event loop: requests that waited while it was held up, or that nobody waits for any more."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.overload import Connect, ask, is_sent_away, wait_for_nothing
from harness.server import Serve, Server, wait_until
from workers.classes import LOOPS

Start = Callable[..., Server]


@pytest.fixture(params=LOOPS)
def start(request: pytest.FixtureRequest, serve: Serve, gate: Gate) -> Start:
    """Start a worker whose loop the test can hold."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")

    def started(*args: str, **options: object) -> Server:
        arguments = ("-k", "asgi", "--asgi-loop", request.param, "--access-logfile", "-", *args)
        return serve("asgi_gated:app", *arguments, env=gate.env, **options)  # type: ignore[arg-type]  # passed on

    return started


@pytest.fixture
def idle(connect: Connect) -> Connect:
    """Open connections that have had an answer already."""

    def opened(server: Server) -> socket.socket:
        sock = connect(server)
        assert ask(sock, "/free").read_answer().status == 200
        return sock

    return opened


def test_no_request_of_a_loop_has_a_deadline(routes: Server) -> None:
    assert json.loads(routes.get("/deadline").body) == ["<Deadline: never>", None, None, None]


def test_a_request_that_waited_for_the_loop_is_sent_away(
    start: Start, gate: Gate, connect: Connect, idle: Connect
) -> None:
    server = start("--queue-timeout", "0.5")
    held, known, fresh = idle(server), idle(server), connect(server)
    answers = [ask(held, "/held")]
    gate.wait_started()
    answers += [ask(known, "/late"), ask(fresh, "/late")]
    wait_for_nothing(fresh)
    # In the listen queue, and not for long.
    soon = connect(server)
    answers.append(ask(soon, "/soon"))
    gate.release()
    done, *late, last = [reader.read_answer() for reader in answers]
    assert (done.body, last.body) == (b"done", b"done")
    assert all(is_sent_away(answer) for answer in late)
    server.wait_for_log(r"requests answered 503, the last one of ip=127\.0\.0\.1: .*queue_timeout")
    assert server.get("/free").body == b"done"
    server.wait_for_log("/free", stream="stdout", count=3)
    assert "/late" not in server.stdout, "the application was not called"


def test_a_request_that_waited_for_its_task_is_sent_away(start: Start, gate: Gate, idle: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    first, waits, second, late = (idle(server) for _ in range(4))
    readers = [ask(first, "/held")]
    gate.wait_started()
    # Read in one turn: the first of these takes the task that is prepared, the others get theirs in the next turn.
    readers += [ask(waits, "/waits"), ask(second, "/held"), ask(late, "/late")]
    gate.release()
    gate.wait_started()
    wait_for_nothing(late)
    gate.release()
    *done, answer = [reader.read_answer() for reader in readers]
    assert [each.body for each in done] == [b"done"] * 3
    assert is_sent_away(answer)
    assert "never awaited" not in server.log


def test_the_time_of_the_connections_own_requests_is_no_waiting(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    sock = connect(server)
    reader = ask(sock, "/held", "/free")
    gate.wait_started()
    wait_for_nothing(sock)
    gate.release()
    assert [reader.read_answer().status for _ in range(2)] == [200, 200]


def test_a_client_that_left_while_it_waited_costs_no_call(
    start: Start, gate: Gate, connect: Connect, idle: Connect
) -> None:
    server = start()
    held, known, fresh, patient = idle(server), idle(server), connect(server), idle(server)
    reader = ask(held, "/held")
    gate.wait_started()
    for sock in (known, fresh):
        ask(sock, "/gone")
    answers = ask(patient, "/free?patient")
    wait_for_nothing(patient)
    known.close()
    fresh.close()
    gate.release()
    assert reader.read_answer().body == answers.read_answer().body == b"done"
    assert server.get("/free?last").body == b"done"
    server.wait_for_log(r"/free\?last", stream="stdout")
    assert "/gone" not in server.stdout
    assert server.stop() == 0


def test_a_client_that_only_ended_its_side_is_answered(
    start: Start, gate: Gate, connect: Connect, idle: Connect
) -> None:
    server = start()
    held, ended = idle(server), connect(server)
    reader = ask(held, "/held")
    gate.wait_started()
    answers = ask(ended, "/free")
    ended.shutdown(socket.SHUT_WR)
    wait_for_nothing(ended)
    gate.release()
    assert reader.read_answer().body == answers.read_answer().body == b"done"


def test_a_handshake_that_waited_too_long_is_sent_away(start: Start, gate: Gate, idle: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    held, late = idle(server), idle(server)
    reader = ask(held, "/held")
    gate.wait_started()
    late.sendall(
        b"GET /late HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    wait_for_nothing(late)
    gate.release()
    assert reader.read_answer().body == b"done"
    assert is_sent_away(AnswerReader(late).read_answer())


def test_a_crowd_that_comes_in_one_turn_is_bounded_by_worker_connections(
    start: Start, gate: Gate, connect: Connect, idle: Connect
) -> None:
    server = start("--worker-connections", "3", "--keep-alive", "60")
    held = idle(server)
    reader = ask(held, "/held")
    gate.wait_started()
    crowd = [connect(server) for _ in range(20)]
    for sock in crowd:
        ask(sock, "/free")
    gate.release()
    assert reader.read_answer().body == b"done"
    assert len(wait_for_answers(crowd, 2)) == 2
    # Whatever else was accepted in that turn would be answered before these.
    for _ in range(3):
        assert ask(held, "/free").read_answer().body == b"done"
    answered = wait_for_answers(crowd, 2)
    assert len(answered) == 2
    while crowd:
        for sock in answered:
            assert AnswerReader(sock).read_answer().body == b"done"
            sock.close()
            crowd.remove(sock)
        answered = wait_for_answers(crowd, min(2, len(crowd)))


def wait_for_answers(socks: list[socket.socket], count: int) -> list[socket.socket]:
    """Wait until so many of them have something to read, and give those that have."""
    answered: list[socket.socket] = []

    def look() -> bool:
        answered[:], _, _ = select.select(socks, [], [], 0)
        return len(answered) >= count

    wait_until(look, f"{count} answers")
    return answered
