"""The hooks of every worker class: when they are called, and what they are given."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from harness.server import Serve, Server
from workers.classes import ALL

CONFIG = """\
import json, os

def say(name, **seen):
    print(json.dumps({"hook": name, **seen}), flush=True)

def post_fork(server, worker): say("post_fork", pid=worker.pid, own=os.getpid(), booted=worker.booted)
def post_worker_init(worker): say("post_worker_init", pid=worker.pid, loaded=worker.wsgi is not None)
def worker_int(worker): say("worker_int", pid=worker.pid)
def worker_abort(worker): say("worker_abort", pid=worker.pid)
def worker_exit(server, worker): say("worker_exit", pid=worker.pid)
def child_exit(server, worker): say("child_exit", pid=worker.pid)

def pre_request(worker, req):
    say("pre_request", pid=worker.pid, **{name: getattr(req, name) for name in
        ("method", "uri", "path", "query", "version", "headers", "scheme")})

def post_request(worker, req, environ, resp):
    say("post_request", method=req.method, uri=environ["RAW_URI"], status=resp.status, code=resp.status_code,
        sent=resp.sent, headers=resp.headers)
"""
REQUEST = b"GET /a%20b?c=d HTTP/1.1\r\nHost: test.example\r\nX-Mine: yes\r\n\r\n"


@pytest.fixture(scope="module", params=ALL)
def server(request: pytest.FixtureRequest, serve_module: Serve) -> Server:
    """One worker with every hook."""
    return serve_module("hello:app", "-k", request.param, config=CONFIG)


def calls(server: Server, name: str) -> list[dict[str, Any]]:
    """What a hook was given, call by call."""
    said = [json.loads(line) for line in server.stdout.splitlines() if line.startswith("{")]
    return [call for call in said if call["hook"] == name]


def test_the_hooks_around_a_request(server: Server) -> None:
    server.wait_for_log('"post_worker_init"', stream="stdout")
    with server.connection() as (sock, reader):
        sock.sendall(REQUEST)
        reader.read_answer()
        sock.sendall(REQUEST)
        reader.read_answer()
    server.wait_for_log('"post_request"', stream="stdout", count=2)
    (worker,) = server.worker_pids()
    for before in calls(server, "pre_request"):
        assert (before["pid"], before["method"], before["uri"]) == (worker, "GET", "/a%20b?c=d")
        assert (before["path"], before["query"], before["scheme"]) == ("/a%20b", "c=d", "http")
        assert before["version"] == [1, 1]
        assert ["X-MINE", "yes"] in before["headers"]
    for after in calls(server, "post_request"):
        assert (after["method"], after["uri"], after["status"]) == ("GET", "/a%20b?c=d", "200 OK")
        assert (after["code"], after["sent"]) == (200, 13)
        assert ["Content-Length", "13"] in after["headers"]


def test_the_hooks_around_a_worker(server: Server) -> None:
    server.wait_for_log('"post_worker_init"', stream="stdout")
    (forked,), (loaded,) = calls(server, "post_fork"), calls(server, "post_worker_init")
    assert forked["pid"] == forked["own"] == loaded["pid"]
    assert (forked["booted"], loaded["loaded"]) == (False, True)


@pytest.mark.parametrize("worker_class", ALL)
def test_the_hooks_at_the_end(serve: Serve, worker_class: str) -> None:
    server = serve("hello:app", "-k", worker_class, "--log-level", "debug", config=CONFIG)
    (worker,) = server.wait_for_ready(1)
    assert server.stop(signal.SIGINT) == 0
    assert [calls(server, name) for name in ("worker_int", "worker_exit", "child_exit")] == [
        [{"hook": name, "pid": worker}] for name in ("worker_int", "worker_exit", "child_exit")
    ]


@pytest.mark.parametrize("worker_class", ALL)
def test_a_hook_that_raises_is_logged(serve: Serve, worker_class: str) -> None:
    config = "def post_request(worker, req): raise ValueError('in the hook')\n"
    server = serve("hello:app", "-k", worker_class, config=config)
    assert server.get("/").status == 200
    server.wait_for_log(r"Exception in post_request hook\nTraceback[\s\S]*ValueError: in the hook")
    assert server.get("/").status == 200
