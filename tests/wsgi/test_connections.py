"""One connection among others: kept, pipelined, half-closed, broken off, slow."""

from __future__ import annotations

import re
import socket
import struct
import threading

import pytest

from harness.answers import AnswerReader
from harness.server import Serve, Server, wait_until


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("traffic:app")


def get(path: str, *fields: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: a", *fields, "", ""]).encode()


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_connection_serves_many_requests(server: Server) -> None:
    with server.connection() as (sock, reader):
        for number in range(50):
            sock.sendall(get(f"/{number}"))
            answer = reader.read_answer()
            assert (answer.text, answer.header("Connection")) == (f"/{number}", "keep-alive")


def test_connection_close_is_obeyed_and_said(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(get("/one", "Connection: close") + get("/two"))
        answer = reader.read_answer()
        assert (answer.text, answer.header("Connection")) == ("/one", "close")
        assert reader.read_to_close() == b""


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = ["/stream?40", "/a", "/stream?3", "/b", "/halting", "/c", "/large?3000000", "/d", "/e"]
    with server.connection() as (sock, reader):
        sock.sendall(b"".join(map(get, paths)))
        answers = [reader.read_answer() for _ in paths]
    bodies = [answer.body for answer in answers]
    assert [len(body) for body in bodies] == [40 * 65536, 2, 3 * 65536, 2, len(bodies[4]), 2, 3_000_000, 2, 2]
    assert bodies[4] == b"".join(b"%d" % number for number in range(1, 2000, 2))
    assert [bodies[at] for at in (1, 3, 5, 7, 8)] == [b"/a", b"/b", b"/c", b"/d", b"/e"]


def test_pipelined_bodies_stay_with_their_requests(server: Server) -> None:
    bodies = [b"x" * size for size in (0, 1, 70_000, 5, 200_000, 3)]
    with server.connection() as (sock, reader):
        sock.sendall(b"".join(post("/input", body) for body in bodies))
        texts = [reader.read_answer().text for _ in bodies]
    assert [int(text.split()[1]) for text in texts] == [len(body) for body in bodies]


def test_a_flood_of_pipelined_requests_is_answered_whole(server: Server) -> None:
    count = 20_000
    with server.connection() as (sock, reader):
        # From a thread of its own: it is more than the buffers hold, so sending waits for reading.
        sender = threading.Thread(target=sock.sendall, args=(get("/x") * count,))
        sender.start()
        assert all(reader.read_answer().body == b"/x" for _ in range(count))
        sender.join()
        assert reader.pending == b""


def test_100_continue_comes_to_a_client_that_waits_for_it(server: Server) -> None:
    request = post("/input", b"hello", "Expect: 100-continue")
    with server.connection() as (sock, reader):
        sock.sendall(request[:-5])
        assert reader.read_answer().status == 100
        sock.sendall(b"hello")
        assert reader.read_answer().text == "memory 5 []"


def test_no_100_continue_when_the_body_is_there_already(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(post("/input", b"hello", "Expect: 100-continue"))
        assert reader.read_answer().status == 200
        sock.sendall(post("/input", b"", "Expect: 100-continue"))
        assert reader.read_answer().status == 200
        sock.sendall(get("/x", "Expect: 100-continue"))
        assert reader.read_answer().status == 200


def test_no_100_continue_for_http_1_0(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(b"POST /input HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        sock.sendall(b"hello")
        assert reader.read_answer().status == 200


def test_a_client_may_close_its_sending_side(server: Server) -> None:
    for path, size in (("/x", 2), ("/stream?60", 60 * 65536), ("/large?5000000", 5_000_000)):
        with server.connection() as (sock, reader):
            sock.sendall(get(path))
            sock.shutdown(socket.SHUT_WR)
            assert len(reader.read_answer().body) == size
            assert reader.read_to_close() == b""


def test_pipelined_requests_before_a_half_close_are_all_answered(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(get("/stream?60") + get("/a") + get("/stream?2") + get("/b"))
        sock.shutdown(socket.SHUT_WR)
        assert [len(reader.read_answer().body) for _ in range(4)] == [60 * 65536, 2, 2 * 65536, 2]
        assert reader.read_to_close() == b""


@pytest.mark.parametrize("part", [b"", b"G", get("/x")[:-1], post("/x", b"hello")[:-1]])
def test_an_end_inside_a_request_just_ends(server: Server, part: bytes) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        assert reader.read_to_close() == b""


def test_a_client_that_vanishes_harms_nobody(server: Server) -> None:
    (pid,) = server.worker_pids()
    for path in ("/stream?1000", "/large?9000000", "/halting", "/x"):
        for late in (False, True):
            sock = server.connect()
            sock.sendall(get(path) * 3)
            if late:
                sock.recv(100)
            reset(sock)
    sock = server.connect()
    sock.sendall(post("/digest", b"x" * 100_000)[:-1])
    reset(sock)
    assert server.get("/x").body == b"/x"
    assert server.worker_pids() == [pid] and "Traceback" not in server.log


def test_a_slow_reader_holds_nobody_else(server: Server) -> None:
    with server.connection() as (streamed, _), server.connection() as (large, large_reader):
        streamed.sendall(get("/stream?100000"))
        streamed.recv(1000)
        large.sendall(get("/large?15000000"))
        with server.connection() as (sock, reader):
            for number in range(100):
                sock.sendall(get(f"/{number}"))
                assert reader.read_answer().text == f"/{number}"
        assert len(large_reader.read_answer().body) == 15_000_000


def test_a_slow_reader_gets_its_whole_answer(server: Server) -> None:
    with server.connection() as (slow, reader):
        slow.sendall(get("/stream?100") + get("/after"))
        for _ in range(30):
            assert server.get("/x").status == 200
            reader.pending += slow.recv(3000)
        body = reader.read_answer().body
        assert body == b"".join(b"%08d" % number * 8192 for number in range(100))
        assert reader.read_answer().body == b"/after"


def test_a_slow_sender_holds_nobody_else(server: Server) -> None:
    request = post("/input", b"slowly" * 20)
    with server.connection() as (slow, slow_reader), server.connection() as (sock, reader):
        for at in range(len(request)):
            slow.sendall(request[at : at + 1])
            if at % 10 == 0:
                sock.sendall(get(f"/{at}"))
                assert reader.read_answer().text == f"/{at}"
        assert slow_reader.read_answer().text == "memory 120 []"


def test_many_connections_are_open_at_once(server: Server) -> None:
    connections = [server.connect() for _ in range(300)]
    for number, sock in enumerate(connections):
        sock.sendall(get(f"/{number}"))
    for number, sock in enumerate(connections):
        assert AnswerReader(sock).read_answer().text == f"/{number}"
    for sock in connections:
        sock.close()
    wait_until(lambda: int(server.get("/fds").text) < 50, "the descriptors of closed connections are given back")


@pytest.mark.parametrize("keepalive", ["0", "5"])
def test_keepalive_0_closes_after_each_answer(serve: Serve, keepalive: str) -> None:
    server = serve("traffic:app", "--keep-alive", keepalive)
    with server.connection() as (sock, reader):
        sock.sendall(get("/x"))
        assert reader.read_answer().header("Connection") == ("close" if keepalive == "0" else "keep-alive")
        if keepalive == "0":
            assert reader.read_to_close() == b""


def test_a_unix_socket_serves_the_same(serve: Serve) -> None:
    server = serve("traffic:app", bind="unix:serve.sock")
    address = f"unix:{server.directory / 'serve.sock'}"
    with server.connection(address) as (sock, reader):
        sock.sendall(get("/a") + get("/stream?50") + get("/b"))
        assert [len(reader.read_answer().body) for _ in range(3)] == [2, 50 * 65536, 2]


def test_the_refusal_reaches_a_client_that_is_still_sending(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(b"BAD REQUEST LINE\r\n\r\n" + b"x" * 300_000)
        assert reader.read_answer().status == 400
    server.wait_for_log(r"Invalid request from ip=127\.0\.0\.1: .*\[400\]")
    assert not re.search(r"Booting worker[\s\S]*Booting worker", server.log)
