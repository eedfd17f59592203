"""Too much to do for a tornado worker: what its loop, its threads and its limits keep waiting."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.overload import Connect, ask, is_sent_away, wait_for_nothing
from harness.server import DEADLINE_S, Serve, Server, wait_until

APP = (Path(__file__).parents[1] / "compat" / "projects" / "tornado_app.py").read_text()
Start = Callable[..., Server]


@pytest.fixture
def start(serve: Serve, gate: Gate) -> Start:
    """Start a worker with an access log, with the Tornado application or a WSGI one."""

    def started(*args: str, app: str = "tornado_app:app", **options: object) -> Server:
        arguments = ("-k", "tornado", "--access-logfile", "-", *args)
        return serve(app, *arguments, env=gate.env, files={"tornado_app.py": APP}, **options)  # type: ignore[arg-type]  # passed on

    return started


def test_a_request_that_waited_for_the_loop_is_sent_away(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    held, known, fresh = connect(server), connect(server), connect(server)
    assert ask(known, "/").read_answer().status == 200
    answers = [ask(held, "/held")]
    gate.wait_started()
    answers += [ask(known, "/late?known"), ask(fresh, "/late?fresh")]
    wait_for_nothing(fresh)
    soon = connect(server)
    answers.append(ask(soon, "/?soon"))
    gate.release()
    done, *late, last = [reader.read_answer() for reader in answers]
    assert (done.body, last.status) == (b"done", 200)
    assert all(is_sent_away(answer) for answer in late)
    assert known.recv(1) == b""
    server.wait_for_log(r"requests answered 503, the last one of ip=127\.0\.0\.1: .*queue_timeout")
    server.wait_for_log(r"/\?soon", stream="stdout")
    assert "/late" not in server.stdout, "the application was not called"


def test_requests_that_become_readable_together_wait_for_each_other(
    start: Start, gate: Gate, connect: Connect, tmp_path: Path
) -> None:
    server = start("--queue-timeout", "0.5", bind=f"unix:{tmp_path}/socket")
    first, second, late = connect(server), connect(server), connect(server)
    assert [ask(sock, "/").read_answer().status for sock in (second, late)] == [200, 200]
    readers = [ask(first, "/held")]
    gate.wait_started()
    # Tornado reads both in one turn of its loop. On a unix socket nobody but the worker knows how long they wait then.
    readers += [ask(second, "/held"), ask(late, "/held")]
    gate.release()
    gate.wait_started()
    assert readers[0].read_answer().body == b"done"
    wait_for_nothing(late)
    gate.release()
    answers = [reader.read_answer() for reader in readers[1:]]
    assert sorted(answer.body for answer in answers) == [b"", b"done"]
    assert any(is_sent_away(answer) for answer in answers)


def test_a_request_on_a_connection_that_has_just_been_answered_waits_as_any_other(
    start: Start, gate: Gate, connect: Connect
) -> None:
    server = start("--queue-timeout", "0.5")
    socks = [connect(server) for _ in range(3)]
    readers = [ask(sock, "/held") for sock in socks[:1]]
    gate.wait_started()
    readers += [ask(sock, "/held") for sock in socks[1:]]
    gate.release()
    gate.wait_started()
    gate.release()
    gate.wait_started()
    # Of the two that were read in one turn one is answered, and its client goes on while the other holds the loop.
    (quick, *_), _, _ = select.select(socks[1:], [], [], DEADLINE_S)
    other = next(reader for sock, reader in zip(socks[1:], readers[1:], strict=True) if sock is not quick)
    assert AnswerReader(quick).read_answer().body == b"done"
    late = ask(quick, "/late")
    wait_for_nothing(quick)
    gate.release()
    assert other.read_answer().body == b"done"
    assert is_sent_away(late.read_answer())


def test_a_request_that_waited_for_a_thread_is_sent_away(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5", "--threads", "2", app="gated:app")
    held = [connect(server), connect(server)]
    readers = [ask(sock, "/held") for sock in held]
    for _ in held:
        gate.wait_started()
    late, gone = connect(server), connect(server)
    answers = ask(late, "/late")
    ask(gone, "/gone")
    wait_for_nothing(late)
    gone.close()
    gate.release(2)
    assert [reader.read_answer().body for reader in readers] == [b"done"] * 2
    assert is_sent_away(answers.read_answer())
    assert ask(held[0], "/free?last").read_answer().body == b"done"
    server.wait_for_log(r"/free\?last", stream="stdout")
    assert '"GET /late HTTP/1.1" 503 ' in server.stdout
    assert '"GET /gone HTTP/1.1" 499 ' in server.stdout


def test_more_than_limit_concurrency_are_sent_away_at_once(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--limit-concurrency", "2")
    readers = [ask(connect(server), "/gated") for _ in range(2)]
    for _ in readers:
        gate.wait_started()
    refused = connect(server)
    assert is_sent_away(ask(refused, "/").read_answer())
    assert is_sent_away(server.get("/", method="POST", body=b"x" * 200_000))
    gate.release(2)
    assert [reader.read_answer().body for reader in readers] == [b"done"] * 2
    server.wait_for_log(r"requests answered 503, the last one of ip=127\.0\.0\.1: limit_concurrency")
    assert server.get("/").status == 200


def test_a_client_that_asks_before_it_sends_its_body_is_told(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--limit-concurrency", "1")
    held = ask(connect(server), "/gated")
    gate.wait_started()
    asking = connect(server)
    asking.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert is_sent_away(AnswerReader(asking).read_answer())
    gate.release()
    assert held.read_answer().body == b"done"


def test_a_client_that_left_while_the_loop_was_held_costs_no_call(start: Start, gate: Gate, connect: Connect) -> None:
    server = start()
    held, known, fresh = connect(server), connect(server), connect(server)
    assert ask(known, "/").read_answer().status == 200
    reader = ask(held, "/held")
    gate.wait_started()
    for sock in (known, fresh):
        ask(sock, "/gone")
    wait_for_nothing(fresh)
    known.close()
    fresh.close()
    gate.release()
    assert reader.read_answer().body == b"done"
    assert server.get("/?last").status == 200
    server.wait_for_log(r"/\?last", stream="stdout")
    assert "/gone" not in server.stdout
    assert server.stop() == 0


def test_a_request_waits_from_the_end_of_its_body_on(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    held, early, late = connect(server), connect(server), connect(server)
    for sock in (early, late):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfo")
    assert server.get("/").status == 200  # The heads have been read.
    wait_for_nothing(early)
    early.sendall(b"ur")
    assert AnswerReader(early).read_answer().status == 200, "the time in which a client sends does not count"
    reader = ask(held, "/held")
    gate.wait_started()
    late.sendall(b"ur")
    wait_for_nothing(late)
    gate.release()
    assert reader.read_answer().body == b"done"
    assert is_sent_away(AnswerReader(late).read_answer())


def test_an_application_that_reads_a_body_as_it_comes_has_begun(start: Start, gate: Gate, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    held, streamed = connect(server), connect(server)
    streamed.sendall(b"POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfo")
    assert server.get("/").status == 200  # The head has been read.
    reader = ask(held, "/held")
    gate.wait_started()
    streamed.sendall(b"ur")
    wait_for_nothing(streamed)
    gate.release()
    assert reader.read_answer().body == b"done"
    assert AnswerReader(streamed).read_answer().body == b"four"


def test_the_time_of_a_slow_reader_is_no_waiting(start: Start, connect: Connect) -> None:
    server = start("--queue-timeout", "0.5")
    sock = connect(server)
    reader = ask(sock, "/large", "/")
    slow_until = time.monotonic() + 0.8
    wait_until(lambda: time.monotonic() > slow_until, "a reader that takes its time")
    assert len(reader.read_answer().body) == 20_000_000
    assert reader.read_answer().status == 200
