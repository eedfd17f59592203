"""What happens to the client, the log and the worker when an application fails."""

from __future__ import annotations

import pytest

from harness.server import Serve, Server


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("failing:app")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/raise", r'Traceback .*\n  File ".*failing\.py", line \d+, in app\n.*LookupError\("deep inside"\)'),
        ("/chained", r"LookupError: the cause.*direct cause.*ValueError: the consequence"),
        ("/odd", r"failing\.py.*OddError"),
        ("/recursion", r"RecursionError"),
        ("/raise_after_start", r"LookupError: after start_response"),
    ],
)
def test_an_exception_is_a_500_and_a_traceback_of_the_users_own(server: Server, path: str, said: str) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (500, "close")
        assert b"LookupError" not in answer.body
        assert reader.read_to_close() == b""
    server.wait_for_log(rf"(?s)\[ERROR\] Error handling request GET {path}\n.*{said}")
    assert server.get("/").status == 200


def test_the_traceback_begins_with_the_application(server: Server) -> None:
    server.get("/raise")
    server.wait_for_log(
        r'Error handling request GET /raise\nTraceback \(most recent call last\):\n  File ".*failing\.py'
    )


def test_head_gets_a_500_without_a_body(server: Server) -> None:
    received = server.raw(b"HEAD /raise HTTP/1.1\r\nHost: a\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 500 ") and received.endswith(b"\r\n\r\n")


def test_a_failure_does_not_eat_the_requests_behind_it(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        assert [reader.read_answer().status for _ in range(2)] == [200, 500]
        assert reader.read_to_close() == b"", "the connection ends with the failure"


@pytest.mark.parametrize(("path", "name"), [("/exit", "SystemExit"), ("/interrupt", "KeyboardInterrupt")])
def test_an_exit_ends_the_worker_after_its_answer(serve: Serve, path: str, name: str) -> None:
    server = serve("failing:app")
    (pid,) = server.worker_pids()
    assert server.get(path).status == 500
    server.wait_for_workers(1, without=[pid])
    server.wait_for_log(name)
    assert server.get("/").body == b"fine"


def test_an_exit_in_the_middle_of_an_answer_breaks_it_off(serve: Serve) -> None:
    server = serve("failing:app")
    (pid,) = server.worker_pids()
    received = server.raw(b"GET /exit_later HTTP/1.1\r\nHost: a\r\n\r\n")
    assert received.endswith(b"5\r\nbegun\r\n")
    server.wait_for_workers(1, without=[pid])
    assert server.get("/").body == b"fine"
