"""start_response: what it takes, what it refuses, and when."""

from __future__ import annotations

import itertools
import json

import pytest

from apps.starts import WRONG
from harness.server import Serve, Server


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("starts:app")


@pytest.mark.parametrize("path", WRONG)
def test_what_cannot_go_on_the_wire_is_refused_at_the_call(server: Server, path: str) -> None:
    answer = server.get(path)
    kind, _, text = answer.text.partition(": ")
    assert answer.status == 200 and answer.header("X-Injected") is None and answer.header("X-One") is None
    assert kind in ("TypeError", "ValueError") and text


def test_a_second_call_without_exc_info_is_an_error_of_the_application(server: Server) -> None:
    answer = server.get("/twice")
    assert answer.status == 500 and b"never" not in answer.body
    server.wait_for_log(r"(?s)Error handling request GET /twice.*File \".*starts.py\".*in twice.*second time")


def test_exc_info_before_the_first_byte_replaces_the_response(server: Server) -> None:
    answer = server.get("/again")
    assert (answer.status, answer.reason, answer.body) == (418, "I'm a Teapot", b"second")
    assert answer.header("X-First") is None and answer.header("X-Second") == "2"
    assert answer.header_values("Content-Length") == ["6"]


def test_the_arguments_have_the_names_of_the_pep(server: Server) -> None:
    assert server.get("/keyword").body == b"named"


@pytest.mark.parametrize("path", ["/late", "/late_write"])
def test_exc_info_after_the_first_byte_is_raised_again(server: Server, path: str) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        received = reader.read_to_close()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n") and received.endswith(b"5\r\nfirst\r\n")
    server.wait_for_log(rf"(?s)Error handling request GET {path} after its response had begun.*LookupError: too late")


@pytest.mark.parametrize("path", ["/never", "/never_empty", "/never_stream"])
def test_an_application_that_never_calls_it_gets_a_500(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.status == 500 and b"body" not in answer.body.replace(b"<body>", b"").replace(b"</body>", b"")
    server.wait_for_log(rf"(?s)Error handling request GET {path}\n.*start_response")


def test_a_generator_may_call_it_when_it_is_first_pulled(server: Server) -> None:
    answer = server.get("/lazily")
    assert (answer.status, answer.body) == (202, b"lazy")


def test_other_sequences_are_taken_for_headers(server: Server) -> None:
    answer = server.get("/tuples")
    assert (answer.header("X-One"), answer.header("X-Two")) == ("1", "2")


def test_latin_1_and_padding_go_out_as_the_rfc_wants_them(server: Server) -> None:
    answer = server.get("/latin1")
    assert answer.reason == "Tr\xe8s bien"
    assert (answer.header("X-One"), answer.header("X-Empty")) == ("caf\xe9\tau lait", "")
    received = server.raw(b"GET /latin1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"\r\nX-Padded: x\r\n" in received


def test_a_list_changed_after_the_call_changes_nothing(server: Server) -> None:
    answer = server.get("/mutated")
    assert answer.header("X-One") == "1" and answer.header("X-Two") is None and answer.header("X-Injected") is None


def test_a_status_without_a_reason_keeps_its_space(server: Server) -> None:
    assert server.raw(b"GET /no_reason HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 299 \r\n")


#: Status, fields and body of answers that differ from each other in one thing at most.
HEADS: tuple[tuple[str, list[tuple[str, str]], str], ...] = (
    ("200 OK", [("X-One", "1"), ("Content-Length", "2")], "ab"),
    ("200 OK", [("X-One", "1"), ("content-length", "2")], "ab"),
    ("200 OK", [("X-One", "1"), ("Content-Length", "11")], "ab" * 5 + "c"),
    ("200 OK", [("X-One", "1"), ("Content-Length", "1"), ("Content-Length", "2")], "ab"),
    ("200 OK", [("X-One", "2"), ("Content-Length", "2")], "ab"),
    ("200 OK", [("X-One", "\xe9"), ("Content-Length", "2")], "ab"),
    ("200 OK", [("X-Two", "1"), ("Content-Length", "2")], "ab"),
    ("200 OK", [("Content-Length", "2"), ("X-One", "1")], "ab"),
    ("200 OK", [("X-One", "1")], "ab"),
    ("200 OK", [], "ab"),
    ("200 Ok", [("X-One", "1"), ("Content-Length", "2")], "ab"),
    ("202 OK", [("X-One", "1"), ("Content-Length", "2")], "ab"),
    ("200 OK", [(f"X-{number}", str(number)) for number in range(40)], "ab"),
    ("200 OK", [("X-Long", "x" * 5000)], "ab"),
)


def test_a_head_owes_nothing_to_the_one_before_it(server: Server) -> None:
    with server.connection() as (sock, reader):
        for first, second in itertools.product(HEADS, HEADS):
            for status, fields, body in (first, second):
                told = json.dumps((status, fields, body)).encode()
                sock.sendall(b"POST /told HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
                answer = reader.read_answer()
                assert (f"{answer.status} {answer.reason}", answer.text) == (status, body)
                for name, value in fields:
                    assert value == answer.header(name) or name.lower() == "content-length"
                expected = {name.lower() for name, _ in fields} | {"server", "date", "connection", "content-length"}
                assert {name.lower() for name, _ in answer.headers} == expected


@pytest.mark.parametrize("wrong", [("Content-Length", "2 "), ("Content-Length", "x"), ("X-One", 1), ("X-One", "1\n")])
def test_what_is_wrong_is_refused_behind_the_same_head_too(server: Server, wrong: tuple[str, object]) -> None:
    right = {"Content-Length": "2", "X-One": "1"}
    for fields in (right, dict([*right.items(), wrong])):
        answer = server.get("/told", method="POST", body=json.dumps(("200 OK", list(fields.items()), "ab")).encode())
    assert answer.status == (200 if wrong[1] == "2 " else 500)
