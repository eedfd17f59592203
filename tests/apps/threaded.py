"""What threads, contexts and processes of an application look like from inside; the path names it."""

from __future__ import annotations

import contextvars
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CONTEXT: contextvars.ContextVar[str] = contextvars.ContextVar("CONTEXT", default="unset")
LOCAL = threading.local()
BLOCK = b"x" * 65536


def _held() -> None:
    gate = Path(os.environ["GATE"])
    with open(gate / "started", "wb", buffering=0) as started:
        started.write(b"x")
    with open(gate / "release", "rb", buffering=0) as release:
        release.read(1)


def _streamed(name: str) -> Iterator[bytes]:
    """Blocks that say, at the end, in how many threads and contexts they were made."""
    LOCAL.name = name
    token = CONTEXT.set(name)
    threads, seen = set(), set()
    for _ in range(200):
        threads.add(threading.get_ident())
        seen.add((CONTEXT.get(), LOCAL.name))
        LOCAL.name = name
        yield BLOCK
    CONTEXT.reset(token)
    yield f"{len(threads)} {sorted(seen)} {CONTEXT.get()}".encode()


def _begun_and_held() -> Iterator[bytes]:
    yield b"begun"
    _held()
    yield b"ended"


def _forked(how: str) -> list[bytes]:
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(3)
        if how == "now":
            os._exit(3)
        if how == "raise":
            raise LookupError("in the copy")
        return [b"from the copy"]
    _, status = os.waitpid(pid, 0)
    return [str(os.waitstatus_to_exitcode(status)).encode()]


def _deadline(environ: dict[str, Any], query: str) -> list[bytes]:
    deadline = environ["bicorn.deadline"]
    before = deadline.at
    deadline.extend(float(query or 0))
    later = None if before is None else round(deadline.at - before, 3)
    left = deadline.remaining()
    return [f"{later} {None if left is None else left > 0}".encode()]


def _spent(environ: dict[str, Any], seconds: float) -> list[bytes]:
    """Longer than `timeout`, after asking for that."""
    environ["bicorn.deadline"].extend(seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        threading.Event().wait(0.05)
    return [b"spent"]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the path."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/late":
        _held()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/held":
        _held()
    elif path == "/begun":
        return _begun_and_held()
    elif path == "/context":
        before = CONTEXT.get()
        CONTEXT.set(query)
        return [before.encode()]
    elif path == "/stream":
        return _streamed(query)
    elif path.startswith("/fork/"):
        return _forked(path.removeprefix("/fork/"))
    elif path == "/multithread":
        return [str(environ["wsgi.multithread"]).encode()]
    elif path == "/deadline":
        return _deadline(environ, query)
    elif path == "/spent":
        return _spent(environ, float(query))
    elif path == "/spin":
        while True:
            pass
    elif path == "/garbage":
        return [f"{gc.isenabled()} {gc.get_freeze_count() > 0}".encode()]
    elif path == "/thread":
        return [threading.current_thread().name.encode()]
    elif path == "/main":
        return [str(threading.current_thread() is threading.main_thread()).encode()]
    return [b"done"]
