"""A WSGI application under the asgi worker: in threads, streaming both ways."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from apps.starts import WRONG
from harness.server import Serve, wait_until

STREAMING = """
import io, threading
barrier = threading.Barrier(2, timeout=20)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/together":
        barrier.wait()
    if environ["PATH_INFO"] == "/error":
        raise ValueError("of the application")
    if environ["PATH_INFO"] == "/stop-iteration":
        raise StopIteration
    write = start_response("200 OK", [("X-Thread", threading.current_thread().name)])
    if environ["PATH_INFO"] == "/file":
        return environ["wsgi.file_wrapper"](io.BytesIO(b"of a file"), 4)
    if environ["PATH_INFO"] == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Content-Length", "5")])
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

#: Calls of start_response that are right, or told so; see tests/apps/starts.py.
TAKEN = ("/latin1", "/no_reason", "/tuples", "/mutated", "/keyword", "/again", "/lazily")

NAMED = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['SERVER_NAME']} {environ['SERVER_PORT']}".encode()]
"""


def test_the_environ_is_that_of_the_sync_worker(serve: Serve) -> None:
    seen = [
        json.loads(serve("seen:app", "-k", worker).get("/a%20b?c=d", method="POST", body=b"data").body)
        for worker in ("asgi", "sync")
    ]
    assert seen[0] == seen[1]


def test_start_response_takes_and_sends_what_it_does_in_the_sync_worker(serve: Serve) -> None:
    """The same status line, reason and fields on the wire; what cannot go there is refused at the call."""
    servers = [serve("starts:app", "-k", worker) for worker in ("sync", "asgi")]
    told = json.dumps(("299 Whatever", [("X-One", "1")], "ab")).encode()
    requests = [f"GET {path} HTTP/1.0\r\n\r\n".encode() for path in TAKEN + tuple(WRONG)]
    requests.append(b"POST /told HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
    for request in requests:
        sync, asgi = (re.sub(rb"\r\nDate: [^\r]+", b"", server.raw(request)) for server in servers)
        assert asgi == sync
    assert asgi.startswith(b"HTTP/1.1 299 Whatever\r\n")


def test_no_status_of_another_protocol_is_taken(serve: Serve) -> None:
    told = json.dumps(("101 Switching Protocols", [], "")).encode()
    answer = serve("starts:app", "-k", "asgi").get("/told", method="POST", body=told)
    assert answer.status == 500


@pytest.mark.parametrize("path", ["/%ff%fe", "/%E2%82", "/%C3%A9%zz", "/%2F%00%25"])
def test_a_path_keeps_bytes_that_are_not_utf8(serve: Serve, path: str) -> None:
    """PEP 3333, "Unicode Issues": native strings hold bytes, each as its Latin-1 character."""
    seen = json.loads(serve("seen:app", "-k", "asgi").get(path).body)
    assert seen["PATH_INFO"] == unquote_to_bytes(path).decode("latin-1")


def test_on_a_unix_socket_the_host_field_names_the_server(serve: Serve, tmp_path: Path) -> None:
    """SERVER_NAME and SERVER_PORT are never empty (PEP 3333, "environ Variables")."""
    server = serve("named:app", "-k", "asgi", bind=f"unix:{tmp_path}/s", files={"named.py": NAMED})
    for host, expected in [
        ("example", "example 80"),
        ("example:", "example 80"),
        ("example:8080", "example 8080"),
        ("[::1]", "[::1] 80"),
        ("[::1]:8080", "[::1] 8080"),
    ]:
        with server.connection() as (sock, reader):
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert reader.read_answer().body.decode() == expected


def test_an_application_that_raises_stop_iteration_is_answered(serve: Serve) -> None:
    server = serve("streaming:app", "-k", "asgi", files={"streaming.py": STREAMING})
    assert server.get("/stop-iteration").status == 500
    server.wait_for_log("the application raised StopIteration")


def test_the_optional_parts_of_the_environ_are_there(serve: Serve) -> None:
    server = serve("streaming:app", "-k", "asgi", files={"streaming.py": STREAMING})
    assert server.get("/file").body == b"of a file"
    with server.connection() as (sock, reader):
        sock.sendall(b"GET /hints HTTP/1.1\r\nHost: h\r\n\r\n")
        hint = reader.read_answer()
        assert (hint.status, hint.header("Link")) == (103, "</a.css>; rel=preload")
        assert hint.header("Content-Length") is None
        assert reader.read_answer().body == b"whole"


def test_a_connect_that_succeeds_says_no_length(serve: Serve) -> None:
    """RFC 9110, 9.3.6."""
    with serve("framing:app", "-k", "asgi").connection() as (sock, reader):
        sock.sendall(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX-Query: length=5\r\n\r\n")
        answer = reader.read_answer("HEAD")
        assert (answer.status, answer.header("Content-Length"), reader.read_to_close()) == (200, None, b"")


def test_a_head_that_the_settings_refuse_is_answered_without_a_body(serve: Serve) -> None:
    """RFC 9110, 9.3.2."""
    head, _, body = (
        serve("framing:app", "-k", "asgi", "--header-map", "refuse")
        .raw(b"HEAD / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n")
        .partition(b"\r\n\r\n")
    )
    assert head.startswith(b"HTTP/1.1 400 ") and body == b""


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
