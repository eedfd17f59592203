"""Threads that the system does not give: a limit on processes counts them as well."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import pytest

from bicorn.workers.thread_pool import ThreadPool
from harness.gate import Gate
from harness.server import Serve

#: More than the address space has: with stacks of that size no thread can be started.
TOO_LARGE = 1 << 47

#: `gated`, and a path from which on there are no more threads to be had.
LIMITED = (
    "import threading\n"
    "from gated import app as gated\n"
    "def app(environ, start_response):\n"
    "    if environ['PATH_INFO'] == '/free':\n"
    f"        threading.stack_size({TOO_LARGE})\n"
    "    return gated(environ, start_response)\n"
)


@pytest.mark.parametrize("arguments", [("-k", "tornado"), ("-k", "asgi")], ids=["tornado", "asgi"])
def test_requests_wait_for_the_threads_that_there_are(serve: Serve, gate: Gate, arguments: tuple[str, ...]) -> None:
    server = serve("limited:app", *arguments, "--threads", "4", env=gate.env, files={"limited.py": LIMITED})
    assert server.get("/free").status == 200
    with server.connection() as (held, one), server.connection() as (late, two):
        held.sendall(b"GET /held HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        late.sendall(b"GET /late HTTP/1.1\r\nHost: test.example\r\n\r\n")
        server.wait_for_log(r"\[WARNING\] Requests wait for the 1 threads that there are: can't start new thread")
        gate.release(2)
        assert [answers.read_answer().body for answers in (one, two)] == [b"done"] * 2
    assert "Traceback" not in server.log


def test_what_no_thread_can_take_is_never_run() -> None:
    ran: list[str] = []
    pool = ThreadPool(2, logging.getLogger("test"))
    with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(ran.append, "refused")
    pool.submit(ran.append, "taken").result(10)
    pool.shutdown()
    assert ran == ["taken"]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Let no thread be started."""
    before = threading.stack_size(TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)
