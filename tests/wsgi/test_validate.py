"""wsgiref.validate between server and application: it raises at every step off PEP 3333."""

from __future__ import annotations

import pytest

from harness.answers import AnswerReader
from harness.server import Serve, Server

BODY = b"first line\nsecond\n\nlast without an end"


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("validated:app")


@pytest.mark.parametrize("query", ["", "?stream"])
@pytest.mark.parametrize("way", ["read", "readline", "readlines", "iterate"])
def test_a_valid_application_reads_its_body_and_answers(server: Server, way: str, query: str) -> None:
    answer = server.get(f"/{way}{query}", method="POST", body=BODY)
    assert (answer.status, answer.body) == (200, BODY), server.log


@pytest.mark.parametrize("way", ["read", "readline", "readlines", "iterate"])
def test_a_request_without_a_body_has_an_empty_input(server: Server, way: str) -> None:
    answer = server.get(f"/{way}")
    assert (answer.status, answer.body, answer.header("X-Pieces")) == (200, b"", "0"), server.log


@pytest.mark.parametrize("way", ["read", "readline", "readlines", "iterate"])
def test_a_chunked_body_is_read_like_any_other(server: Server, way: str) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:3], BODY[3:20], BODY[20:]))
    head = f"POST /{way} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    with server.connection() as (sock, reader):
        sock.sendall(head + chunks + b"0\r\n\r\n")
        answer = reader.read_answer()
    assert (answer.status, answer.body) == (200, BODY), server.log


def test_lines_end_where_the_body_has_them(server: Server) -> None:
    assert server.get("/iterate", method="POST", body=BODY).header("X-Pieces") == "4"


def test_head_and_keep_alive_please_the_validator_too(server: Server) -> None:
    with server.connection() as (sock, reader):
        for method in ("HEAD", "GET", "HEAD"):
            sock.sendall(f"{method} /read HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert AnswerReader.read_answer(reader, method).status == 200, server.log


def test_the_validator_found_nothing_to_complain_about(server: Server) -> None:
    server.get("/read")
    assert "AssertionError" not in server.log and "Error handling request" not in server.log
