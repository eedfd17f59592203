"""An application inside wsgiref's validator, which complains about every step off PEP 3333, the server's too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator


def lines_of(environ: dict[str, Any]) -> list[bytes]:
    """Read the body by iteration."""
    return list(environ["wsgi.input"])


def readlines_of(environ: dict[str, Any]) -> list[bytes]:
    """Read the body by readlines, with the hint that the PEP allows."""
    lines: list[bytes] = environ["wsgi.input"].readlines(100)
    return lines


def readline_of(environ: dict[str, Any]) -> list[bytes]:
    """Read the body line by line."""
    return list(iter(lambda: environ["wsgi.input"].readline(64), b""))


def read_of(environ: dict[str, Any]) -> list[bytes]:
    """Read the body in pieces."""
    return list(iter(lambda: environ["wsgi.input"].read(7), b""))


READERS = {"/read": read_of, "/readline": readline_of, "/readlines": readlines_of, "/iterate": lines_of}


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the body, read in the way that the path names, one block a piece."""
    pieces = READERS[environ["PATH_INFO"]](environ)
    fields = [("Content-Type", "text/plain"), ("X-Pieces", str(len(pieces)))]
    start_response("200 OK", fields)
    return _stream(pieces) if environ["QUERY_STRING"] == "stream" else pieces


def _stream(pieces: list[bytes]) -> Iterator[bytes]:
    yield from pieces


app = validator(plain)
