"""A WSGI application under the asgi worker: in threads, streaming both ways."""

from __future__ import annotations

import json

from harness.server import Serve, wait_until

STREAMING = """
import threading
barrier = threading.Barrier(2, timeout=20)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/together":
        barrier.wait()
    if environ["PATH_INFO"] == "/error":
        raise ValueError("of the application")
    write = start_response("200 OK", [("X-Thread", threading.current_thread().name)])
    if environ["PATH_INFO"] == "/mirror":
        def pieces():
            while data := environ["wsgi.input"].read(65536):
                yield data
        return pieces()
    if environ["PATH_INFO"] == "/write":
        write(b"written,")
        return [b"", b"given"]
    return [b"whole"]
"""


def test_the_environ_is_that_of_the_sync_worker(serve: Serve) -> None:
    seen = [
        json.loads(serve("seen:app", "-k", worker).get("/a%20b?c=d", method="POST", body=b"data").body)
        for worker in ("asgi", "sync")
    ]
    assert seen[0] == seen[1]


def test_bodies_stream_both_ways_in_threads(serve: Serve) -> None:
    server = serve("streaming:app", "-k", "asgi", "--threads", "2", files={"streaming.py": STREAMING})
    data = bytes(range(256)) * 8192
    answer = server.get("/mirror", method="POST", body=data)
    assert answer.body == data
    assert (answer.header("X-Thread") or "").startswith("wsgi")
    whole = server.get("/")
    assert (whole.body, whole.header("Content-Length")) == (b"whole", "5")
    assert server.get("/write").body == b"written,given"
    assert server.get("/error").status == 500
    server.wait_for_log("ValueError: of the application")


def test_requests_run_side_by_side(serve: Serve) -> None:
    """Two that wait for each other both end."""
    server = serve("streaming:app", "-k", "asgi", "--threads", "2", files={"streaming.py": STREAMING})
    with server.connection() as (first, reader), server.connection() as (second, other):
        for sock in (first, second):
            sock.sendall(b"GET /together HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reader.read_answer().body == other.read_answer().body == b"whole"
    assert server.stop() == 0


def test_it_stops_while_a_thread_works(serve: Serve) -> None:
    server = serve("streaming:app", "-k", "asgi", "--graceful-timeout", "1", files={"streaming.py": STREAMING})
    with server.connection() as (sock, _):
        sock.sendall(b"GET /together HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: server.get("/").status == 200, "another answer")
        server.stop()
