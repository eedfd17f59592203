"""Leaves things behind in every place that a server may keep them in, and says which of them are still there."""

from __future__ import annotations

import contextvars
import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]


class Thing:
    """Something of one request."""


class Text(str):
    """A string that can be watched."""


class Block(bytes):
    """A block of a body that holds on to a thing."""

    thing: Thing


CURRENT: contextvars.ContextVar[Thing] = contextvars.ContextVar("CURRENT")
LEFT: dict[str, weakref.ref[Any]] = {}


def watched(name: str, thing: Any) -> Any:
    """The thing; from now on it is said whether it is there."""
    LEFT[name] = weakref.ref(thing)
    return thing


def block(name: str) -> bytes:
    """A block of four bytes; bytes cannot be watched themselves."""
    made = Block(b"done")
    made.thing = watched(name, Thing())
    return made


def begin(environ: Environ, start_response: Start, status: str = "200 OK") -> Any:
    """Leave something in all that an application is given and gives."""
    environ["test.thing"] = watched("environ", Thing())
    CURRENT.set(watched("context", Thing()))
    if environ["CONTENT_LENGTH"] != "0":
        watched("input", environ["wsgi.input"]).read()
    fields = [(watched("name", Text("X-Text")), watched("value", Text("text")))]
    fields += [("Content-Type", "text/plain")]
    return start_response(watched("status", Text(status)), fields)


def whole(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """A list."""
    begin(environ, start_response)
    return [block("block")]


class Answer:
    """An iterable that is closed."""

    def __iter__(self) -> Iterator[bytes]:
        yield block("first")
        yield block("second")

    def close(self) -> None:
        """End it."""
        watched("closed", Thing())


def streamed(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """An iterable."""
    begin(environ, start_response)
    answer: Iterable[bytes] = watched("iterable", Answer())
    return answer


def written(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """The write() of old."""
    begin(environ, start_response)(block("written"))
    return ()


def hinted(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Early hints, and a look at the socket."""
    environ["wsgi.early_hints"]([(Text("Link"), watched("hint", Text("</a>")))])
    environ["gunicorn.socket"].getpeername()
    begin(environ, start_response)
    return [b"done"]


def failed(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """An exception whose traceback holds the frame."""
    begin(environ, start_response)
    held = watched("frame", Thing())
    raise ValueError(f"{held} is held by this frame")


def failed_late(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """The same in the middle of a body whose length is known."""
    begin(environ, start_response)
    yield block("sent")
    held = watched("frame", Thing())
    raise ValueError(f"{held} is held by this frame")


PATHS = {f"/{function.__name__}": function for function in (whole, streamed, written, hinted, failed, failed_late)}


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Do what the path says; /left says what is left of the request before, and forgets it."""
    if environ["PATH_INFO"] in PATHS:
        return PATHS[environ["PATH_INFO"]](environ, start_response)
    left = json.dumps({name: thing() is not None for name, thing in LEFT.items()}).encode()
    LEFT.clear()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(left)))])
    return [left]
