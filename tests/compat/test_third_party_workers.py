"""Worker classes that others wrote for Gunicorn, as they come from PyPI, over real sockets and with real signals."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from compat.visits import Visits
from harness.server import Kind, Serve, Server, wait_until

PROJECTS = Path(__file__).parent / "projects"
UVICORN = ("uvicorn_worker.UvicornWorker", "uvicorn_worker.UvicornH11Worker", "uvicorn.workers.UvicornWorker")
CLASSES = {
    **{name: (name, "fastapi_app:app") for name in UVICORN},
    "aiohttp": ("aiohttp.GunicornWebWorker", "aiohttp_app:app"),
    "aiohttp factory": ("aiohttp.GunicornWebWorker", "aiohttp_app:factory"),
}
Start = Callable[..., Server]


def start_class(serve: Serve, worker_class: str, app: str, *args: str, kind: Kind = "bicorn", **more: object) -> Server:
    """Start a project's application under a worker class, and wait for its first worker."""
    module = app.partition(":")[0]
    files = {f"{module}.py": (PROJECTS / f"{module}.py").read_text(), **more.pop("files", {})}  # type: ignore[dict-item]  # as serve takes them
    return serve(app, "-k", worker_class, "--log-level", "debug", *args, kind=kind, files=files, **more)  # type: ignore[arg-type]  # passed on


@pytest.fixture(params=CLASSES.values(), ids=list(CLASSES))
def start(request: pytest.FixtureRequest, serve: Serve) -> Start:
    """Start Bicorn with one of the classes and an application that fits."""
    return functools.partial(start_class, serve, *request.param)


@pytest.fixture
def start_uvicorn(serve: Serve) -> Start:
    """Start Bicorn with uvicorn's worker and the FastAPI application."""
    return functools.partial(start_class, serve, UVICORN[0], "fastapi_app:app")


def pid_of(server: Server) -> int:
    """The worker that answers."""
    found: int = json.loads(server.get("/").body)["pid"]
    return found


# -- every class -----------------------------------------------------------------------------------


def test_requests_are_answered(start: Start) -> None:
    server = start("-w", "2")
    server.wait_for_ready(2)
    assert pid_of(server) in server.worker_pids()
    assert json.loads(server.get("/echo", method="POST", body=b"x" * 100_000).body) == {"length": 100_000}
    assert server.get("/missing").status == 404


def test_two_requests_share_a_connection(start: Start) -> None:
    server = start()
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
            assert reader.read_answer().status == 200


def test_term_ends_the_server_with_0(start: Start) -> None:
    server = start("-w", "2")
    server.wait_for_ready(2)
    assert server.stop() == 0
    assert "Shutting down: Master" in server.log
    assert "Traceback" not in server.log


def test_a_stop_with_int_is_quick(start: Start) -> None:
    server = start()
    server.wait_for_ready(1)
    assert server.stop(signal.SIGINT) == 0


def test_a_reload_under_load_loses_only_what_the_class_drops(start: Start) -> None:
    server = start("-w", "2")
    before = server.wait_for_ready(2)
    with Visits(server) as visits:
        server.signal(signal.SIGHUP)
        server.wait_for_workers(2, without=before)
        visits.wait_for(20)
    # At SIGTERM both leave what they have accepted and not read from yet: uvicorn and aiohttp close it, and aiohttp now
    # and then keeps it open without an answer. They do so under Gunicorn as well. The visits come one at a time, so
    # each worker that leaves can lose one of them at most.
    assert len(visits.failures) <= len(before)
    assert all(re.search("closed before|ConnectionReset|TimeoutError", failure) for failure in visits.failures)
    assert visits.answered > 20
    assert pid_of(server) not in before


def test_a_worker_that_is_lost_is_replaced(start: Start) -> None:
    server = start()
    before = server.wait_for_ready(1)
    os.kill(before[0], signal.SIGKILL)
    server.wait_for_workers(1, without=before)
    assert server.get("/").status == 200


def test_max_requests_replaces_the_worker(start: Start) -> None:
    server = start("--max-requests", "20")
    before = server.wait_for_ready(1)
    with Visits(server) as visits:
        server.wait_for_workers(1, without=before)
        visits.wait_for(5)
    assert pid_of(server) not in before


def test_the_access_log_is_written(start: Start) -> None:
    server = start("--access-logfile", "access.log")
    server.get("/?shown=1")
    path = server.directory / "access.log"
    wait_until(lambda: path.exists() and "GET /?shown=1 HTTP/1.1" in path.read_text(), "the access line")


def test_usr1_opens_the_logs_again(start: Start) -> None:
    server = start("--access-logfile", "access.log")
    server.wait_for_ready(1)
    path = server.directory / "access.log"
    path.rename(server.directory / "access.1")
    server.signal(signal.SIGUSR1)
    wait_until(path.exists, "the new file")
    server.get("/after")
    wait_until(lambda: "/after" in (path.read_text() + (server.directory / "access.1").read_text()), "the line")


def test_hooks_are_called(start: Start) -> None:
    hooks = "".join(
        f"def {name}({parameters}): print('hook {name}', flush=True)\n"
        for name, parameters in (
            ("pre_fork", "server, worker"),
            ("post_fork", "server, worker"),
            ("post_worker_init", "worker"),
            ("child_exit", "server, worker"),
        )
    )
    server = start(config=hooks)
    server.wait_for_ready(1)
    server.stop()
    for name in ("pre_fork", "post_fork", "post_worker_init", "child_exit"):
        assert f"hook {name}" in server.stdout


# -- uvicorn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UVICORN[::2])
def test_websockets_are_served(serve: Serve, name: str) -> None:
    server = start_class(serve, name, "fastapi_app:app")
    with connect(server.url.replace("http", "ws") + "/ws") as websocket:
        for word in ("one", "two"):
            websocket.send(word)
            assert websocket.recv(timeout=20) == word.upper()


def test_a_plain_function_is_answered_in_its_thread(start_uvicorn: Start) -> None:
    assert start_uvicorn().get("/blocking").status == 200


def test_the_lifespan_begins_and_ends(start_uvicorn: Start) -> None:
    server = start_uvicorn()
    server.wait_for_log("lifespan begins", stream="stdout")
    server.stop()
    assert "lifespan ends" in server.stdout


def test_a_lifespan_that_fails_at_start_ends_the_server_as_it_ends_gunicorn(serve: Serve) -> None:
    codes = {}
    for kind in ("bicorn", "gunicorn"):
        server = start_class(serve, UVICORN[0], "fastapi_app:app", kind=kind, files={"broken": ""}, wait=False)
        codes[kind] = server.wait_exit()
        assert "the database is away" in server.log
    assert codes["bicorn"] == codes["gunicorn"] == 3


def test_a_lifespan_that_fails_at_a_reload_leaves_what_serves(start_uvicorn: Start) -> None:
    server = start_uvicorn()
    before = server.wait_for_ready(1)
    (server.directory / "broken").touch()
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    server.wait_for_workers(1)
    assert pid_of(server) == before[0]
    (server.directory / "broken").unlink()
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=before)
    assert server.get("/").status == 200


def test_an_asynchronous_factory_that_fails_at_a_reload_leaves_what_serves(serve: Serve) -> None:
    server = start_class(serve, "aiohttp.GunicornWebWorker", "aiohttp_app:factory")
    before = server.wait_for_ready(1)
    (server.directory / "broken").touch()
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert pid_of(server) == before[0]


def test_a_stuck_event_loop_is_noticed(serve: Serve) -> None:
    app = (
        "import time\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "@app.get('/stuck')\nasync def stuck():\n    while True: pass\n"
    )
    server = serve("mine:app", "-k", UVICORN[0], "-t", "2", "--log-level", "debug", files={"mine.py": app})
    before = server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: test.example\r\n\r\n")
        server.wait_for_log(r"WORKER TIMEOUT \(pid:\d+\)")
        server.wait_for_workers(1, without=before)
