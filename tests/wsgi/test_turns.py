"""One connection's requests, bodies and leftovers are nobody else's business."""

from __future__ import annotations

import signal
from pathlib import Path

from harness.server import Serve

APP = """
import time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 65536 for _ in range(4000)) if path == "/stream" else [b"done"]
"""


def test_a_reload_with_held_connections_loses_no_new_one(serve: Serve) -> None:
    # The old workers drain while their clients do not read; what comes meanwhile must wake the new ones.
    server = serve("turns:app", "-w", "2", "--log-level", "debug", files={"turns.py": APP})
    old = server.wait_for_ready(2)
    held = [server.connect() for _ in range(6)]
    for sock in held:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
    server.signal(signal.SIGHUP)
    server.wait_for_ready(4)
    for _ in range(40):
        assert server.get("/").status == 200
    for sock in held:
        sock.close()
    server.wait_for_workers(2, without=old)


def test_many_short_requests_at_once_are_no_sign_of_a_hung_worker(serve: Serve) -> None:
    server = serve("turns:app", "--timeout", "2", files={"turns.py": APP})
    (pid,) = server.wait_for_workers(1)
    clients = [server.connect() for _ in range(8)]
    for sock in clients:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    for sock in clients:
        assert sock.recv(12) == b"HTTP/1.1 200"
        sock.close()
    assert server.worker_pids() == [pid]


def test_an_interim_answer_that_does_not_fit_never_reaches_another_client(serve: Serve, tmp_path: Path) -> None:
    # How many answers fill the socket is the kernel's matter, so one number of them after the other is tried.
    server = serve("turns:app", bind=f"unix:{tmp_path}/s", files={"turns.py": APP})
    for count in range(100, 500):
        with server.connect() as full:
            full.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count
                + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            )
            with server.connect() as other:
                other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert other.recv(12) == b"HTTP/1.1 200", count


THREADED = """
import threading

def app(environ, start_response):
    said = []
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    def elsewhere():
        try:
            write(b"x" * 100_000_000)
        except RuntimeError as error:
            said.append(str(error).encode())
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    return said
"""


def test_write_is_refused_in_any_other_thread(serve: Serve) -> None:
    server = serve("threaded:app", files={"threaded.py": THREADED})
    (pid,) = server.wait_for_workers(1)
    assert b"must be called in the thread" in server.get("/").body
    assert server.worker_pids() == [pid]
