"""Answers that never end and uploads that are only counted, for tests of what a client can make a worker hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

BLOCK = b"b" * 65536
pulled = 0


def endless() -> Iterator[bytes]:
    """Give blocks for ever, and count them."""
    global pulled
    for _ in itertools.count():
        pulled += 1
        yield BLOCK


def count(stream: Any) -> int:
    """Read a body block by block."""
    return sum(len(block) for block in iter(lambda: stream.read(len(BLOCK)), b""))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the path."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/endless":
        return endless()
    if environ["PATH_INFO"] == "/pulled":
        return [str(pulled).encode()]
    if environ["PATH_INFO"] == "/block":
        return [BLOCK]
    return [str(count(environ["wsgi.input"])).encode()]
