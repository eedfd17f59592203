"""Signals whose handlers run while the loop is inside Python: in a hook, in a log line."""

from __future__ import annotations

from pathlib import Path

from harness.server import Serve

QUIT = """
import os, signal

def post_request(worker, req, environ, resp):
    if req.path == "/quit":
        os.kill(os.getpid(), signal.SIGQUIT)
"""

ROTATE = """
import os, signal

from bicorn.workers import native

user_of = native.basic_auth_user

def rotated(field):
    os.kill(os.getpid(), signal.SIGUSR1)
    return user_of(field)

native.basic_auth_user = rotated
"""


def test_a_quit_in_a_hook_ends_the_worker(serve: Serve) -> None:
    server = serve("hello:app", config=QUIT)
    (pid,) = server.wait_for_workers(1)
    assert server.get("/quit").status == 200
    server.wait_for_workers(1, without=[pid])
    assert "Exception ignored" not in server.log
    assert server.get("/").status == 200


def test_a_rotation_in_the_middle_of_a_log_line_is_done(serve: Serve, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    server = serve("hello:app", "--access-logfile", str(access), config=ROTATE)
    for _ in range(3):
        assert server.get("/", headers={"Authorization": "Basic YTpi"}).status == 200
    assert server.stop() == 0
    assert access.read_text().count(" - a [") == 3
    assert "Already borrowed" not in server.log and "Already mutably borrowed" not in server.log


def test_a_method_that_is_put_in_upper_case_is_framed_as_such(serve: Serve) -> None:
    server = serve("hello:app", "--casefold-http-method", "--permit-unconventional-http-method")
    received = server.raw(b"head / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"\r\n\r\n")
