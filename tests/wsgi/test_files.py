"""wsgi.file_wrapper: plain files leave through sendfile, everything else is read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.server import Serve, Server

SIZE = 3_000_017  # more than any socket buffer takes at once, and no multiple of a page
CONTENT = random.Random(3).randbytes(SIZE)


@pytest.fixture(scope="module", params=["sendfile", "read"])
def server(request: pytest.FixtureRequest, serve_module: Serve) -> Server:
    return serve_module("files:app", *([] if request.param == "sendfile" else ["--no-sendfile"]))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files") / "large"
    made.write_bytes(CONTENT)
    return made


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("readahead", ["", "&readahead=100"])
@pytest.mark.parametrize("offset", [0, 1, 4096, SIZE - 1, SIZE, SIZE + 5])
def test_a_file_is_sent_from_where_it_stands(
    server: Server, path: Path, offset: int, readahead: str, version: str
) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET /?path={path}&offset={offset}{readahead} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        answer = reader.read_answer()
    assert answer.body == CONTENT[offset + (100 if readahead else 0) :]


def test_a_connection_goes_on_after_a_file(server: Server, path: Path) -> None:
    with server.connection() as (sock, reader):
        for offset in (0, SIZE - 10, 0):
            sock.sendall(
                f"GET /?path={path}&offset={offset}&length={SIZE - offset} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            )
            answer = reader.read_answer()
            assert answer.body == CONTENT[offset:] and answer.header("Connection") == "keep-alive"


def test_pipelined_files_come_in_order(server: Server, path: Path) -> None:
    requests = [
        f"GET /?path={path}&offset={offset} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for offset in (0, SIZE // 2, SIZE - 3)
    ]
    with server.connection() as (sock, reader):
        sock.sendall(b"".join(requests))
        assert [reader.read_answer().body for _ in requests] == [CONTENT, CONTENT[SIZE // 2 :], CONTENT[-3:]]


@pytest.mark.parametrize("length", [0, 1, 4096, 1_000_000, SIZE])
def test_no_more_of_a_file_is_sent_than_was_promised(server: Server, path: Path, length: int) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(f"GET /?path={path}&length={length} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = reader.read_answer()
            assert answer.body == CONTENT[:length] and answer.header("Content-Length") == str(length)


def test_a_file_shorter_than_was_promised_closes_the_connection(server: Server, path: Path) -> None:
    request = f"GET /?path={path}&offset={SIZE - 100}&length=5000 HTTP/1.1\r\nHost: a\r\n\r\n"
    head, _, body = server.raw(request.encode()).partition(b"\r\n\r\n")
    assert b"Content-Length: 5000" in head and body == CONTENT[-100:]
    server.wait_for_log("promised 5000 bytes")


def test_head_and_statuses_without_a_body_send_none_of_it(server: Server, path: Path) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"HEAD /?path={path}&length={SIZE} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert reader.read_answer("HEAD").header("Content-Length") == str(SIZE)
        sock.sendall(f"GET /?path={path}&status=304 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert reader.read_answer().status == 304
        sock.sendall(f"GET /?path={path}&offset={SIZE - 1} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert reader.read_answer().body == CONTENT[-1:]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("offset", [0, SIZE])
def test_a_file_may_follow_what_was_written(server: Server, path: Path, version: str, offset: int) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET /?path={path}&offset={offset}&write=before HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        assert reader.read_answer().body == b"before" + CONTENT[offset:]


@pytest.mark.parametrize(
    ("kind", "content"), [("pipe", b"piped"), ("bytes", b"in memory"), ("unseekable", b"unseekable" * 2000)]
)
def test_what_is_no_plain_file_is_read(server: Server, kind: str, content: bytes) -> None:
    assert server.get(f"/{kind}").body == content


def test_files_are_closed(server: Server, path: Path) -> None:
    server.get("/unseekable?mark1")
    server.wait_for_log("closed mark1\n")
    server.get(f"/seen?path={path}&mark=2")
    server.wait_for_log("closed file .*mark=2\n")
    with server.connection() as (sock, _):
        sock.sendall(f"GET /seen?path={path}&mark=3 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        sock.recv(10)
    server.wait_for_log("closed file .*mark=3\n")


def test_a_file_cut_short_while_it_is_sent_closes_the_connection(server: Server, path: Path, tmp_path: Path) -> None:
    shrinking = tmp_path / "shrinking"
    shrinking.write_bytes(CONTENT * 4)
    with server.connection() as (sock, reader):
        sock.sendall(f"GET /?path={shrinking}&length={SIZE * 4} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        first = sock.recv(1000)
        shrinking.write_bytes(b"")
        rest = reader.read_to_close()
    assert len(first) + len(rest) < SIZE * 4
    assert server.get(f"/?path={path}").body == CONTENT
