"""Applications that raise, exit and are interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

TEXT = [("Content-Type", "text/plain")]


class OddError(Exception):
    """An exception whose own str() fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text either")


def _exit_in_the_middle() -> Iterator[bytes]:
    yield b"begun"
    sys.exit(7)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Fail as the path says."""
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise LookupError("deep inside")
    if path == "/chained":
        try:
            raise LookupError("the cause")
        except LookupError as error:
            raise ValueError("the consequence") from error
    if path == "/odd":
        raise OddError
    if path == "/exit":
        sys.exit(7)
    if path == "/interrupt":
        raise KeyboardInterrupt
    if path == "/recursion":
        return app(environ, start_response)
    start_response("200 OK", TEXT)
    if path == "/exit_later":
        return _exit_in_the_middle()
    if path == "/raise_after_start":
        raise LookupError("after start_response")
    return [b"fine"]
