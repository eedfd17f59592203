"""What an application may return, and that close() is always called."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import struct

import pytest

from harness.server import Serve, Server

WHOLE = {
    "/one": b"one",
    "/list": b"abc" + b"d" * 10000,
    "/tuple": b"abc",
    "/empty_list": b"",
    "/empty_block": b"",
    "/generator": b"abc" + b"d" * 10000,
    "/empty_generator": b"",
    "/empty_blocks": b"",
}
MARKS = itertools.count()


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("bodies:app")


@pytest.fixture
def mark() -> str:
    """A query that no other test uses."""
    return f"mark{next(MARKS)}x"


def wait_closed(server: Server, mark: str) -> None:
    server.wait_for_log(rf"closed {mark}\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", WHOLE)
def test_every_shape_of_body_arrives_whole(server: Server, path: str, version: str, mark: str) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET {path}?{mark} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        answer = reader.read_answer()
    assert answer.body == WHOLE[path]
    if version == "1.0":
        assert answer.header("Transfer-Encoding") is None and answer.header("Connection") == "close"
    wait_closed(server, mark)


@pytest.mark.parametrize("path", ["/one", "/list", "/tuple", "/empty_list", "/empty_block"])
def test_the_length_of_a_list_is_known(server: Server, path: str) -> None:
    answer = server.get(f"{path}?bare")
    assert answer.body == WHOLE[path]
    assert answer.header("Content-Length") == str(len(WHOLE[path])) and answer.header("Transfer-Encoding") is None


def test_an_empty_generator_has_the_length_0(server: Server, mark: str) -> None:
    assert server.get(f"/empty_blocks?{mark}").header("Content-Length") == "0"


def test_each_block_of_a_generator_is_a_chunk(server: Server, mark: str) -> None:
    request = f"GET /generator?{mark} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    body = server.raw(request).split(b"\r\n\r\n", 1)[1]
    assert body == b"1\r\na\r\n2\r\nbc\r\n2710\r\n" + b"d" * 10000 + b"\r\n0\r\n\r\n"


def test_an_error_before_the_first_block_is_a_500(server: Server, mark: str) -> None:
    answer = server.get(f"/raising_first?{mark}")
    assert answer.status == 500 and answer.header("Connection") == "close"
    wait_closed(server, mark)
    server.wait_for_log(r"(?s)Error handling request GET /raising_first.*bodies\.py.*LookupError: before the first")


def test_an_error_after_the_first_block_breaks_the_answer_off(server: Server, mark: str) -> None:
    received = server.raw(f"GET /raising?{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert received.endswith(b"\r\n\r\n5\r\nbegun\r\n")
    wait_closed(server, mark)
    server.wait_for_log(r"(?s)after its response had begun.*LookupError: in the middle")


def test_close_that_fails_is_logged_and_the_answer_stands(server: Server, mark: str) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(f"GET /close_fails?{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = reader.read_answer()
            assert (answer.status, answer.body) == (200, b"whole")
    server.wait_for_log(r"(?s)Error closing the response.*bodies\.py.*ValueError: the door is stuck")


@pytest.mark.parametrize("how", ["reset", "close"])
def test_close_is_called_when_the_client_goes_away(server: Server, mark: str, how: str) -> None:
    with server.connection() as (sock, _):
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(f"GET /endless?{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        sock.recv(1000)
    wait_closed(server, mark)
    assert server.get(f"/one?{mark}").status == 200


@pytest.mark.parametrize("sig", [signal.SIGQUIT, signal.SIGTERM])
def test_close_is_called_when_the_worker_is_stopped(serve: Serve, worker_class: str, sig: signal.Signals) -> None:
    server = serve("bodies:app", "--graceful-timeout", "1")
    with server.connection() as (sock, _):
        sock.sendall(b"GET /endless?stopped HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.recv(1000)
        server.signal(sig)
        if sig == signal.SIGTERM:  # Then the answer may end by itself, and it does when nobody wants it any more.
            sock.close()
        server.wait_exit()
    assert "closed stopped\n" in server.log


def test_close_is_called_when_the_worker_is_stopped_while_a_part_of_an_answer_is_made(serve: Serve) -> None:
    server = serve("bodies:app")
    with server.connection() as (sock, _):
        sock.sendall(b"GET /pausing?paused HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"a part" in sock.recv(1000)  # The head leaves with the first part.
        server.signal(signal.SIGQUIT)
        server.wait_exit()
    assert "closed paused\n" in server.log


@pytest.mark.parametrize("path", ["/str?bare", "/strs?bare", "/bytearray?bare", "/str?wrapped", "/bytearray?wrapped"])
def test_what_is_not_bytes_is_an_error_of_the_application(server: Server, path: str) -> None:
    assert server.get(path).status == 500


def test_a_str_after_a_block_of_bytes_breaks_the_answer_off(server: Server, mark: str) -> None:
    received = server.raw(f"GET /str_later?{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert received.endswith(b"1\r\na\r\n")
    server.wait_for_log(r"TypeError: a response body is made of bytes, not of str")
    wait_closed(server, mark)


@pytest.mark.parametrize("path", ["/none", "/int"])
def test_what_is_not_iterable_is_an_error_of_the_application(server: Server, path: str) -> None:
    assert server.get(f"{path}?bare").status == 500
    server.wait_for_log(rf"(?s)Error handling request GET {path}.*TypeError")


@pytest.mark.parametrize(
    ("path", "rest"),
    [("/written", b""), ("/written_one", b"l1"), ("/written_list", b"l1 l2"), ("/written_generator", b"g1 g2")],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_what_is_written_comes_before_what_is_returned(server: Server, path: str, rest: bytes, version: str) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        assert reader.read_answer().body == b"w1 w2 " + rest


def test_an_error_after_write_breaks_the_answer_off(server: Server) -> None:
    received = server.raw(b"GET /written_raising HTTP/1.1\r\nHost: a\r\n\r\n")
    assert received.endswith(b"3\r\nw1 \r\n3\r\nw2 \r\n")
    assert server.raw(b"GET /written_str HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"3\r\nw2 \r\n")


def test_much_can_be_written_to_a_client_that_reads_late(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(b"GET /written_much HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = reader.read_answer()
    assert len(answer.body) == 6 + 160 * 65536 and not re.search(rb"[^m]", answer.body[6:])
