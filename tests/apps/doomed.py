"""Does what its path says: hangs in C code with the interpreter's lock held, crashes in C code, eats memory."""

from __future__ import annotations

import collections
import ctypes
import itertools
from collections.abc import Callable, Iterable
from typing import Any


def hang_in_c() -> None:
    """Never come back, and let nobody else run Python either, signal handlers included."""
    collections.deque(itertools.repeat(None), maxlen=0)


def crash_in_c() -> None:
    """Read what is at address 0."""
    ctypes.string_at(0)


def eat_memory() -> None:
    """Take memory until there is none."""
    eaten = []
    while True:
        eaten.append(bytearray(16 * 2**20))


DEEDS: dict[str, Callable[[], None]] = {"/hang": hang_in_c, "/crash": crash_in_c, "/eat": eat_memory}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do the deed; without one, answer."""
    DEEDS.get(environ["PATH_INFO"], lambda: None)()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"alive"]
