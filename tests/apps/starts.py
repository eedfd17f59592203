"""Every way to call start_response that PEP 3333 speaks of; the path names it, the answer tells what was raised."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]

# What is given to start_response, by path; all of it is wrong.
WRONG: dict[str, tuple[Any, Any]] = {
    "/status-bytes": (b"200 OK", TEXT),
    "/status-int": (200, TEXT),
    "/status-two-digits": ("20 OK", TEXT),
    "/status-no-space": ("200OK", TEXT),
    "/status-zero": ("000 OK", TEXT),
    "/status-empty": ("", TEXT),
    "/status-crlf": ("200 OK\r\nX-Injected: 1", TEXT),
    "/status-wide": ("200 \u20ac", TEXT),
    "/headers-none": ("200 OK", None),
    "/headers-int": ("200 OK", [1]),
    "/header-single": ("200 OK", [("X-One",)]),
    "/header-triple": ("200 OK", [("X-One", "1", "2")]),
    "/name-bytes": ("200 OK", [(b"X-One", "1")]),
    "/name-empty": ("200 OK", [("", "1")]),
    "/name-space": ("200 OK", [("X One", "1")]),
    "/name-colon": ("200 OK", [("X-One:", "1")]),
    "/name-crlf": ("200 OK", [("X-One\r\nX-Injected", "1")]),
    "/name-wide": ("200 OK", [("X-\u20ac", "1")]),
    "/value-bytes": ("200 OK", [("X-One", b"1")]),
    "/value-int": ("200 OK", [("X-One", 1)]),
    "/value-none": ("200 OK", [("X-One", None)]),
    "/value-cr": ("200 OK", [("X-One", "1\r2")]),
    "/value-lf": ("200 OK", [("X-One", "1\nX-Injected: 1")]),
    "/value-nul": ("200 OK", [("X-One", "1\x002")]),
    "/value-wide": ("200 OK", [("X-One", "\u20ac")]),
    "/length-word": ("200 OK", [("Content-Length", "five")]),
    "/length-negative": ("200 OK", [("Content-Length", "-5")]),
    "/length-list": ("200 OK", [("Content-Length", "5, 5")]),
}


def wrong(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Give what is wrong, and answer properly with what that raised."""
    try:
        start_response(*WRONG[environ["PATH_INFO"]])
    except Exception as error:  # noqa: BLE001  What is raised is the question.
        start_response("200 OK", TEXT)
        return [f"{type(error).__name__}: {error}".encode()]
    return [b"taken"]


def twice(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Two calls without exc_info."""
    start_response("200 OK", TEXT)
    start_response("201 Created", TEXT)
    return [b"never"]


def again(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """A second call with exc_info before the first byte replaces the first."""
    start_response("200 OK", [*TEXT, ("X-First", "1"), ("Content-Length", "99")])
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("418 I'm a Teapot", [*TEXT, ("X-Second", "2")], sys.exc_info())
    return [b"second"]


def keyword(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """All arguments by name."""
    start_response(status="200 OK", response_headers=TEXT, exc_info=None)
    return [b"named"]


def late(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """exc_info after the first byte is raised again."""
    start_response("200 OK", TEXT)
    yield b"first"
    try:
        raise LookupError("too late to say so")
    except LookupError:
        start_response("500 Oops", TEXT, sys.exc_info())
    yield b"never"


def late_write(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """The same after write()."""
    start_response("200 OK", TEXT)(b"first")
    try:
        raise LookupError("too late to say so")
    except LookupError:
        start_response("500 Oops", TEXT, sys.exc_info())
    return [b"never"]


def never(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """No call at all."""
    return [b"body"]


def never_empty(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """No call, and nothing to send."""
    return []


def never_stream(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """No call by a generator."""
    yield b"body"


def lazily(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """A generator calls when it is first pulled, after an empty block."""
    yield b""
    start_response("202 Accepted", TEXT)
    yield b""
    yield b"lazy"


def tuples(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Headers in other sequences than a list of tuples, which Gunicorn takes as well."""
    start_response("200 OK", (["X-One", "1"], ("X-Two", "2")))
    return [b"taken"]


def latin1(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Latin-1 in a value and a reason, and a tab."""
    start_response("200 Tr\xe8s bien", [("X-One", "caf\xe9\tau lait"), ("X-Empty", ""), ("X-Padded", "  x  ")])
    return [b"taken"]


def mutated(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """What is done to the list afterwards changes nothing that was checked."""
    fields = [("X-One", "1")]
    start_response("200 OK", fields)
    fields.append(("X-Two", "2\r\nX-Injected: 1"))
    return [b"taken"]


def no_reason(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """A status without a reason."""
    start_response("299", TEXT)
    return [b"taken"]


def told(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """The head that the request's body spells, in new objects each time."""
    status, fields, body = json.loads(environ["wsgi.input"].read())
    start_response(status, [tuple(field) for field in fields])
    return [body.encode()]


NAMED = {
    f"/{function.__name__}": function
    for function in (
        twice, again, keyword, late, late_write, never, never_empty, never_stream, lazily, tuples, latin1, mutated,
        no_reason, told,
    )
}  # fmt: skip


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Do what the path says."""
    if environ["PATH_INFO"] in WRONG:
        return wrong(environ, start_response)
    return NAMED[environ["PATH_INFO"]](environ, start_response)
