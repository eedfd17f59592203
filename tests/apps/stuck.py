"""Gets stuck in C code with the interpreter's lock held, for ever or for a while, beside requests that only wait."""

from __future__ import annotations

import collections
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

LONG_S = 600.0


def say_started() -> None:
    """Tell the test that a request is inside the application."""
    with open(Path(os.environ["GATE"]) / "started", "wb", buffering=0) as started:
        started.write(b"x")


def hang_in_c() -> None:
    """Keep the lock for ever."""
    collections.deque(itertools.repeat(None), maxlen=0)


def stay_in_c(seconds: float) -> None:
    """Keep the lock for so long, whatever signals come: there is no bytecode in it."""
    clock = itertools.starmap(time.monotonic, itertools.repeat(()))
    collections.deque(itertools.takewhile((time.monotonic() + seconds).__gt__, clock), maxlen=0)


def body_that_waits() -> Iterator[bytes]:
    """Give the beginning of a body, and then nothing."""
    yield b"begun"
    say_started()
    time.sleep(LONG_S)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says."""
    path = environ["PATH_INFO"]
    if path == "/begin":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "10")])
        return body_that_waits()
    if path == "/wait":
        say_started()
        time.sleep(LONG_S)
    elif path == "/hang":
        hang_in_c()
    elif path.startswith("/stay/"):
        stay_in_c(float(path[6:]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"alive"]
