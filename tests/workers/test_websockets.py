"""WebSockets that a WSGI application speaks itself, on the connection that it takes over (gunicorn.socket)."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness.server import Serve, Server
from workers.classes import GREEN

PROJECTS = Path(__file__).parents[1] / "compat" / "projects"


@pytest.fixture(params=[("gthread", "--threads", "3"), *((name,) for name in GREEN)], ids=lambda args: args[0])
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    """Flask-Sock in one worker of a class that runs requests side by side."""
    files = {"sock_app.py": (PROJECTS / "sock_app.py").read_text()}
    return serve("sock_app:app", "-k", *request.param, "--access-logfile", "-", files=files)


def test_flask_sock_talks(server: Server) -> None:
    url = server.url.replace("http", "ws") + "/ws"
    with connect(url) as first, connect(url) as second:
        for word in ("one", "two"):
            for websocket in (first, second):
                websocket.send(word)
                assert websocket.recv(timeout=20) == word.upper()
        assert server.get("/").status == 200
    assert server.get("/").status == 200
    assert "Traceback" not in server.log
