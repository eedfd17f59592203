"""The life of workers under load, in each of our worker classes: nothing is lost, whatever happens."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.load import load
from harness.server import Serve, wait_until

CLASSES = ("gthread", "gevent", "eventlet", "tornado", "asgi")  # sync has the tests of its own beside this one
WSGI = """
def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '4')])
    return [b'here']
"""
ASGI = """
async def app(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'4')]})
    await send({'type': 'http.response.body', 'body': b'here'})
"""


def files(worker_class: str) -> dict[str, str]:
    """The application for a worker class."""
    return {"mine.py": ASGI if worker_class == "asgi" else WSGI}


@pytest.mark.parametrize("worker_class", CLASSES)
def test_reloads_recycling_and_scaling_lose_nothing(serve: Serve, worker_class: str) -> None:
    config = f"worker_class = '{worker_class}'\nworkers = 2\nreload_mode = 'rolling'\nmax_requests = {{}}\n"
    server = serve("mine:app", "--log-level", "debug", config=config.format(60), files=files(worker_class))
    server.wait_for_ready(2)
    with load(server, rate=100) as traffic:
        server.wait_for_log(r"Worker exiting \(pid: ", count=2)
        (server.directory / "server.conf.py").write_text(config.format(0))
        before = server.worker_pids()
        server.signal(signal.SIGHUP)
        server.wait_for_log("Reload done")
        server.wait_for_workers(2, without=before)
        server.signal(signal.SIGTTIN)
        server.wait_for_workers(3)
        server.signal(signal.SIGTTOU)
        server.wait_for_workers(2)
        traffic.wait_for(50)
    assert traffic.failures == []
    assert server.stop() == 0


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_template_and_a_warm_worker_lose_nothing(serve: Serve, worker_class: str) -> None:
    arguments = ("-k", worker_class, "-w", "2", "--preload", "--refork", "30")
    server = serve("mine:app", *arguments, "--log-level", "debug", files=files(worker_class))
    first = server.wait_for_ready(2)
    with load(server, rate=200) as traffic:
        server.wait_for_log("New workers are forked from the template")
        second = server.wait_for_workers(2, without=first)
        server.signal(signal.SIGHUP)
        server.wait_for_workers(2, without=second)
        traffic.wait_for(50)
    assert traffic.failures == []
    assert server.stop() == 0


@pytest.mark.parametrize("worker_class", ["sync", *CLASSES])
def test_what_waits_at_an_address_that_is_given_up_is_answered(serve: Serve, gate: Gate, worker_class: str) -> None:
    app = "asgi_gated:app" if worker_class == "asgi" else "gated:app"
    config = f"worker_class = '{worker_class}'\nbind = '%s'\n"
    server = serve(app, "--log-level", "debug", config=config % "127.0.0.1:0", env=gate.env)
    (old,) = server.wait_for_ready(1)
    with server.connection() as (held, first), contextlib.ExitStack() as stack:
        held.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        waiting = [stack.enter_context(server.connection()) for _ in range(100)]  # more than one turn takes
        for sock, _ in waiting:
            sock.sendall(b"GET /free HTTP/1.1\r\nHost: a\r\n\r\n")
        (server.directory / "server.conf.py").write_text(config % "unix:new.sock")
        wakes = times_woken(old)
        server.signal(signal.SIGHUP)
        server.wait_for_log("Reload done")
        wait_until(lambda: times_woken(old) > wakes, "the signal that ends the old worker")
        gate.release()
        assert first.read_answer().body == b"done"
        assert [reader.read_answer().body for _, reader in waiting] == [b"done"] * len(waiting)
    server.wait_for_workers(1, without=[old])
    assert server.get("/free", address=f"unix:{server.directory / 'new.sock'}").body == b"done"


def times_woken(pid: int) -> int:
    """How often the main thread of a process has gone to sleep: once more, when it was woken by a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
