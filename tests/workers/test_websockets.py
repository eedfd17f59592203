"""WebSockets that a WSGI application speaks itself, on the connection that it takes over (gunicorn.socket)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness.load import load
from harness.server import Serve, Server, wait_until
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


# -- classes and libraries that bring their own --------------------------------------------------------

GEVENT_WEBSOCKET = """\
def app(environ, start_response):
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"plain"]
    while (message := websocket.receive()) is not None:
        websocket.send(message.upper())
    return []
"""
EVENTLET_WEBSOCKET = """\
from eventlet.websocket import WebSocketWSGI

@WebSocketWSGI
def talk(websocket):
    while (message := websocket.wait()) is not None:
        websocket.send(message.upper())

def app(environ, start_response):
    if environ["PATH_INFO"] == "/ws":
        return talk(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]
"""
CONFIG = """\
def pre_request(worker, req): print("pre", req.method, req.uri, flush=True)
def post_request(worker, req, environ, resp): print("post", req.uri, resp.status, flush=True)
"""
OWN = {
    "gevent-websocket": ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", GEVENT_WEBSOCKET),
    "eventlet.websocket": ("eventlet", EVENTLET_WEBSOCKET),
}


@pytest.fixture(params=OWN.values(), ids=list(OWN))
def start_own(request: pytest.FixtureRequest, serve: Serve) -> Callable[..., Server]:
    """Start an application whose WebSockets are those of another library."""
    worker_class, app = request.param

    def started(*args: str) -> Server:
        return serve("mine:app", "-k", worker_class, *args, files={"mine.py": app})

    return started


def talk(server: Server) -> None:
    with connect(server.url.replace("http", "ws") + "/ws") as websocket:
        for word in ("one", "two"):
            websocket.send(word)
            assert websocket.recv(timeout=20) == word.upper()
        assert server.get("/").body == b"plain"


def test_other_websockets_talk(start_own: Callable[..., Server]) -> None:
    server = start_own("-w", "2")
    before = server.wait_for_workers(2)
    talk(server)
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=before)
    talk(server)
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_max_requests_replaces_a_worker_of_gevents_own_server(serve: Serve) -> None:
    worker_class, app = OWN["gevent-websocket"]
    server = serve("mine:app", "-k", worker_class, "--max-requests", "50", files={"mine.py": app})
    with load(server) as traffic:
        server.wait_for_log("Booting worker with pid", count=3)
        traffic.wait_for(20)
    assert traffic.failures == []


def test_gevents_own_server_calls_the_hooks(serve: Serve) -> None:
    worker_class, app = OWN["gevent-websocket"]
    server = serve("mine:app", "-k", worker_class, config=CONFIG, files={"mine.py": app})
    talk(server)
    server.wait_for_log("pre GET /ws", stream="stdout")
    server.wait_for_log("post /ws 101 Switching Protocols", stream="stdout")
    server.wait_for_log("post / 200 OK", stream="stdout")


def test_a_websocket_may_last_longer_than_a_request(serve: Serve) -> None:
    files = {"sock_app.py": (PROJECTS / "sock_app.py").read_text()}
    server = serve("sock_app:app", "-k", "gthread", "--threads", "2", "-t", "1", files=files)
    with connect(server.url.replace("http", "ws") + "/ws") as websocket:
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 2.5, "more time than a request may take")
        websocket.send("late")
        assert websocket.recv(timeout=20) == "LATE"
    assert "WORKER TIMEOUT" not in server.log
