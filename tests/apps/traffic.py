"""Slow, large and counted answers for tests of connections; the path names them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def _blocks(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b"%08d" % number * 8192


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the path."""
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    if path == "/stream":
        return _blocks(int(environ["QUERY_STRING"] or 100))
    if path == "/large":
        return [b"l" * int(environ["QUERY_STRING"])]
    if path == "/halting":
        return (b"%d" % number if number % 2 else b"" for number in range(2000))
    if path == "/digest":
        stream = environ["wsgi.input"]
        digest = hashlib.sha256()
        while block := stream.read(65536):
            digest.update(block)
        return [digest.hexdigest().encode()]
    if path == "/input":
        # How the body is held, and what lies in the directory of spooled bodies while it is.
        stream = environ["wsgi.input"]
        kind = "file" if hasattr(stream, "raw") else "memory"
        files = os.listdir(environ["QUERY_STRING"]) if environ["QUERY_STRING"] else []
        return [f"{kind} {len(stream.read())} {files}".encode()]
    if path == "/fds":
        return [str(len(os.listdir("/proc/self/fd"))).encode()]
    return [path.encode()]
