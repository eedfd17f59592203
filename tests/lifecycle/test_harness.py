"""The harness itself, tried on the oracle: what it says about a server must be true."""

from __future__ import annotations

from harness.server import Serve, is_alive


def test_a_server_is_started_asked_and_stopped(serve: Serve) -> None:
    # One worker, which has answered: a Gunicorn worker that is told to stop before it has signal handlers never does.
    server = serve("hello:app", kind="gunicorn")
    assert server.get("/").body == b"Hello, world!"
    workers = server.wait_for_workers(1)
    raw = server.raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n") and raw.endswith(b"Hello, world!")
    assert server.stop() == 0
    assert not any(is_alive(pid) for pid in workers)
    assert "Shutting down: Master" in server.log


def test_files_are_in_the_working_directory(serve: Serve) -> None:
    server = serve("mine:app", kind="gunicorn", files={"mine.py": "from hello import app\n"})
    assert server.get("/").status == 200
