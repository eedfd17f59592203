"""The messages of ASGI's HTTP protocol, over raw sockets."""

from __future__ import annotations

import json
import select
import socket

import pytest

from harness.answers import Answer
from harness.server import APPS, Serve, Server, wait_until


def events(server: Server) -> list[str]:
    """What the application has noted."""
    noted: list[str] = json.loads(server.get("/show-events").body)
    return noted


def wait_for_event(server: Server, event: str) -> None:
    wait_until(lambda: any(noted.startswith(event) for noted in events(server)), f"the event {event!r}")


def one(server: Server, request: bytes, method: str = "GET") -> Answer:
    with server.connection() as (sock, reader):
        sock.sendall(request)
        return reader.read_answer(method)


def test_a_response_in_pieces_is_chunked_and_one_in_one_piece_has_its_length(routes: Server) -> None:
    assert routes.get("/hello").header("Content-Length") == "5"
    streamed = routes.get("/stream")
    assert (streamed.header("Transfer-Encoding"), streamed.body) == ("chunked", b"onetwothree")


def test_http10_gets_no_chunks_and_its_connection_ends(routes: Server) -> None:
    data = routes.raw(b"GET /stream HTTP/1.0\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert b"Connection: close" in head
    assert body == b"onetwothree"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_get_none(routes: Server, status: int) -> None:
    data = routes.raw(f"GET /status?{status} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert body == b""
    assert b"Content-Length" not in head
    assert b"Transfer-Encoding" not in head


def test_head_is_answered_as_get_without_the_body(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"HEAD /status?200 HTTP/1.1\r\nHost: h\r\n\r\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.read_answer("HEAD").header("x-a") == "b"
        assert reader.read_answer().body == b"hello"


def test_less_than_content_length_closes_and_more_is_dropped(routes: Server) -> None:
    short = routes.raw(b"GET /length?5,3 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert short.endswith(b"\r\n\r\nxxx")
    routes.wait_for_log(r"promised 5 bytes for GET /length and gave 3")
    assert routes.raw(b"GET /length?3,5 HTTP/1.1\r\nHost: h\r\n\r\n", answers=1).endswith(b"\r\n\r\nxxx")
    routes.wait_for_log(r"promised 3 bytes for GET /length and gave more")


@pytest.mark.parametrize("path", ["raise-early", "raise-started", "nothing", "bad-header"])
def test_a_failure_before_the_first_byte_is_a_500(routes: Server, path: str) -> None:
    answer = routes.get(f"/{path}")
    assert (answer.status, answer.header("Connection")) == (500, "close")
    assert answer.header("x-a") is None
    routes.wait_for_log(rf"request GET /{path}")


def test_a_failure_after_the_first_byte_breaks_the_connection(routes: Server) -> None:
    data = routes.raw(b"GET /raise-late HTTP/1.1\r\nHost: h\r\n\r\n")
    assert data.endswith(b"4\r\npart\r\n")  # and no last chunk
    routes.wait_for_log(r"request GET /raise-late after its response had begun")


def test_a_failure_after_the_whole_response_leaves_the_connection(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(b"GET /raise-answered HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = reader.read_answer()
            assert (answer.status, answer.body) == (500, b"sorry")
    routes.wait_for_log(r"(?s)request GET /raise-answered after its response had ended\n.*ValueError: at the end")


def test_where_the_end_is_a_close_a_failure_is_a_reset(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"GET /raise-late HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            reader.read_to_close()


def test_messages_out_of_order_raise(routes: Server) -> None:
    raised = json.loads(routes.get("/out-of-order").body)
    assert [line.split(":")[0] for line in raised] == [
        "RuntimeError",
        "RuntimeError",
        "RuntimeError",
        "TypeError",
        "ValueError",
        "TypeError",
        "RuntimeError",
        "TypeError",
    ]
    wait_for_event(
        routes, "RuntimeError: the message http.response.body is out of order: the response is already complete"
    )


def test_a_complete_response_is_a_disconnect_to_who_still_receives(routes: Server) -> None:
    assert routes.get("/after-end").body == b"done"
    wait_for_event(routes, "http.disconnect")


def test_a_body_of_any_buffer_is_sent(routes: Server) -> None:
    assert routes.get("/buffers").body == b"array,view"


def test_bodies_go_both_ways_at_once(routes: Server) -> None:
    data = bytes(range(256)) * 8192
    assert routes.get("/mirror", method="POST", body=data).body == data
    assert routes.get("/echo", method="POST", body=data).body == data


def test_a_chunked_body_is_put_together(routes: Server) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert one(routes, head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: t\r\n\r\n").body == b"abcdefg"


def test_receive_and_send_give_coroutines_to_any_thread(routes: Server) -> None:
    assert routes.get("/as-coroutines").body == b"x" * 65536 * 64
    wait_for_event(routes, "in a thread: http.disconnect")


def test_an_application_that_gives_up_waiting_loses_no_part_of_the_body(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /impatient HTTP/1.1\r\nHost: h\r\nContent-Length: 400\r\n\r\n")
        for number in range(100):
            sock.sendall(b"%04d" % number)
            while b"%04d" % number not in reader.pending:
                assert reader._fill()
        assert len(reader.read_answer().body) == 400


def test_100_continue_is_said_when_the_application_wants_the_body(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert reader.read_answer().status == 100
        sock.sendall(b"abc")
        assert reader.read_answer().body == b"abc"


def test_100_continue_is_not_said_when_nobody_wants_the_body(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (413, "close")


def test_a_short_body_that_nobody_read_costs_no_connection(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
        assert reader.read_answer().header("Connection") == "keep-alive"
        sock.sendall(b"abcGET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.read_answer().body == b"hello"


def test_a_long_body_that_nobody_read_ends_the_connection_after_the_answer(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 300_000)
        answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (413, "close")


def test_early_hints_come_before_the_answer(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"GET /hints HTTP/1.1\r\nHost: h\r\n\r\n")
        hint = reader.read_answer()
        assert (hint.status, hint.header_values("Link")) == (103, ["</a.css>; rel=preload", "</b.js>; rel=preload"])
        assert reader.read_answer().body == b"hinted"
    assert routes.raw(b"GET /hints HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_trailers_follow_the_body(routes: Server) -> None:
    answer = routes.get("/trailers")
    assert (answer.body, answer.trailers) == (b"abcdef", (("x-sum", "42"),))


def test_files_are_sent(routes: Server) -> None:
    source = (APPS / "asgi_routes.py").read_bytes()
    answer = routes.get("/pathsend")
    assert (answer.header("Content-Length"), answer.body) == (str(len(source)), source)
    assert routes.get("/zerocopysend").body == b"<" + source[3:13] + b">"
    assert routes.get("/pathsend?/nonexistent").status == 500


def test_a_file_that_is_not_sent_leaves_no_trace_in_the_answer(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"GET /pathsend-fails HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
        for _ in range(2):
            answer = reader.read_answer()
            assert answer.header_values("Content-Length") == ["17"]
            assert (answer.status, answer.body) == (404, b"IsADirectoryError")


def test_what_a_careless_application_writes_into_is_its_own(routes: Server) -> None:
    """The same bytes again and again: the head is remembered, its scope is new."""
    with routes.connection() as (sock, reader):
        for _ in range(4):
            sock.sendall(b"GET /shared HTTP/1.1\r\nHost: h\r\n\r\n")
            assert json.loads(reader.read_answer().body) == [1, None, None, None, None]


def test_pipelined_requests_are_answered_in_order(routes: Server) -> None:
    paths = ["hello", "stream", "tasks", "echo"] * 20
    requests = b"".join(f"GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for path in paths)
    with routes.connection() as (sock, reader):
        sock.sendall(requests)
        bodies = [reader.read_answer().body for _ in paths]
    assert bodies[0::4] == [b"hello"] * 20
    assert bodies[1::4] == [b"onetwothree"] * 20
    assert bodies[3::4] == [b""] * 20


def test_a_client_that_closes_its_side_still_gets_its_answer(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"GET /timeouts HTTP/1.1\r\nHost: h\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert reader.read_answer().status == 200


@pytest.mark.parametrize(
    "last", [b"", b"GET /hello HT", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nha"]
)
@pytest.mark.parametrize("first", ["timeouts", "hello", "wait-for-disconnect"])
def test_whole_requests_before_a_half_close_are_answered(routes: Server, first: str, last: bytes) -> None:
    """More of them than are begun in one turn; half a request at the end gets no answer."""
    paths = [first, *["timeouts", "hello"] * 10]
    with routes.connection() as (sock, reader):
        sock.sendall(b"".join(f"GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for path in paths) + last)
        sock.shutdown(socket.SHUT_WR)
        assert [reader.read_answer().status for _ in paths] == [200] * len(paths)
        assert reader.read_to_close() == b""


def test_half_a_body_is_a_disconnect(routes: Server) -> None:
    with routes.connection() as (sock, reader):
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
        sock.shutdown(socket.SHUT_WR)
        assert reader.read_to_close() == b""


@pytest.mark.parametrize(
    ("path", "first"), [("tasks", False), ("tasks?inline", True), ("tasks?marked", False), ("timeouts", False)]
)
def test_tasks_and_contexts_are_those_of_the_request(routes: Server, path: str, first: bool) -> None:
    answers = [routes.get(f"/{path}") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]


def test_a_task_cancels_itself_where_it_waits_first(routes: Server) -> None:
    assert routes.get("/cancel-itself").body == b"hello"
    wait_for_event(routes, "cancelled by itself")


def test_the_client_leaves_while_the_application_receives(routes: Server) -> None:
    with routes.connection() as (sock, _):
        sock.sendall(b"GET /wait-for-disconnect HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for_event(routes, "waiting")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for_event(routes, "OSError: the client has closed the connection")


def test_the_client_leaves_and_the_application_does_not_look(routes: Server) -> None:
    with routes.connection() as (sock, _):
        sock.sendall(b"GET /stubborn HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for_event(routes, "stubborn began")
    wait_for_event(routes, "stubborn cancelled")  # after asgi_disconnect_grace_period, 3 s


def test_a_slow_reader_bounds_what_is_sent(routes: Server) -> None:
    before = json.loads(routes.get("/memory").body)
    with routes.connection() as (sock, reader):
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        reader._take(100)
        for _ in range(3):  # Each of them would let an application without backpressure send some more.
            after = json.loads(routes.get("/memory").body)
        assert after - before < 8 * 1024 * 1024
    wait_for_event(routes, "endless ended")


def test_a_slow_application_bounds_what_is_read(routes: Server) -> None:
    before = json.loads(routes.get("/memory").body)
    size = 64 * 1024 * 1024
    with routes.connection() as (sock, reader):
        sock.sendall(f"POST /slow-reader HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode())
        sock.setblocking(False)
        sent = send_what_fits(sock, size)
        assert sent < 32 * 1024 * 1024, "reading did not pause"
        assert json.loads(routes.get("/memory").body) - before < 8 * 1024 * 1024
        routes.get("/release")
        sock.settimeout(20)
        sock.sendall(b"x" * (size - sent))
        assert json.loads(reader.read_answer().body) == size


def send_what_fits(sock: socket.socket, size: int) -> int:
    """Send until nothing more goes for half a second; give how much went."""
    sent = 0
    while sent < size and select.select([], [sock], [], 0.5)[1]:
        try:
            sent += sock.send(b"x" * min(65536, size - sent))
        except BlockingIOError:
            continue
    return sent


def test_a_background_task_does_not_hold_the_connection(serve_module: Serve) -> None:
    server = serve_module("asgi_routes:app", "-k", "asgi")
    with server.connection() as (sock, reader):
        sock.sendall(b"GET /background HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.read_answer().body == b"answered"
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.read_answer().body == b"hello"
        assert "background ended" not in events(server)
        server.get("/release")
        wait_for_event(server, "background ended")
