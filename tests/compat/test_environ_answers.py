"""What the same application's answers look like from Gunicorn and from Bicorn; docs/differences.md says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.answers import Answer
from harness.server import Kind, Serve, Server

#: Fields that any two moments or programs give differently.
VARYING = ("date", "server")

# Requests to the application `framing`: the same answer from both.
SAME = [
    "GET /?length=5 HTTP/1.1",
    "GET /?length=5&status=404 HTTP/1.1",
    "GET /?stream=1&blocks=3 HTTP/1.1",
    "GET /?length=5&field=X-One:1&field=Set-Cookie:a&field=Set-Cookie:b HTTP/1.1",
    "HEAD /?length=5 HTTP/1.1",
    "GET /?status=304&bytes=0 HTTP/1.1",
    "GET /?length=7&blocks=3 HTTP/1.1",
    "GET /?length=5&field=Keep-Alive:timeout HTTP/1.1",
    "GET /?length=5&field=Connection:x-one HTTP/1.1",
    "GET /?length=0&blocks=0 HTTP/1.1",
    "GET /?length=5 HTTP/1.0",
    "GET /?length=5&status=204 HTTP/1.1",
    "GET /?length=5&field=Server:mine&field=Date:never HTTP/1.1",
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Kind, Server]]:
    serve = Serve(tmp_path_factory.mktemp("answers"))
    kinds: tuple[Kind, ...] = ("gunicorn", "bicorn")
    yield {kind: serve("framing:app", kind=kind) for kind in kinds}
    serve.close()


def ask(server: Server, line: str) -> tuple[Answer, dict[str, list[str]]]:
    with server.connection() as (sock, reader):
        sock.sendall(f"{line}\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = reader.read_answer(line.split(" ")[0])
    names = dict.fromkeys(name.lower() for name, _ in answer.headers)
    return answer, {name: answer.header_values(name) for name in names if name not in VARYING}


@pytest.mark.parametrize("line", SAME)
def test_an_answer_is_the_same(servers: dict[Kind, Server], line: str) -> None:
    (theirs, their_fields), (ours, our_fields) = ask(servers["gunicorn"], line), ask(servers["bicorn"], line)
    assert (ours.status, ours.reason, ours.body) == (theirs.status, theirs.reason, theirs.body)
    assert our_fields == their_fields


@pytest.mark.parametrize(
    ("line", "field", "theirs", "ours"),
    [
        ("GET /?blocks=1 HTTP/1.1", "transfer-encoding", ["chunked"], None),
        ("GET /?blocks=1 HTTP/1.1", "content-length", None, ["5"]),
    ],
)
def test_an_answer_differs_as_it_is_documented(
    servers: dict[Kind, Server], line: str, field: str, theirs: list[str] | None, ours: list[str] | None
) -> None:
    assert ask(servers["gunicorn"], line)[1].get(field) == theirs
    assert ask(servers["bicorn"], line)[1].get(field) == ours


def test_the_status_line_names_the_version_of_the_server(servers: dict[Kind, Server]) -> None:
    versions = {kind: ask(server, "GET /?length=5 HTTP/1.0")[0].version for kind, server in servers.items()}
    assert versions == {"gunicorn": "HTTP/1.0", "bicorn": "HTTP/1.1"}


def test_an_application_closes_the_connection_only_here(servers: dict[Kind, Server]) -> None:
    with servers["bicorn"].connection() as (sock, reader):
        sock.sendall(b"GET /?length=5&field=Connection:close HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reader.read_answer().header("Connection") == "close"
    with servers["bicorn"].connection() as (sock, reader):
        sock.sendall(b"GET /?length=5 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reader.read_answer().header("Connection") == "keep-alive"
    with servers["gunicorn"].connection() as (sock, reader):
        sock.sendall(b"GET /?length=5 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reader.read_answer().header("Connection") == "close"
