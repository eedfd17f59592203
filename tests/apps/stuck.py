"""Gets stuck in C code with the interpreter's lock held, for ever or for a while, beside requests that only wait."""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

LONG_S = 600.0
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def spin() -> None:
    """Run Python for ever, and let no other greenlet or task run."""
    while True:
        pass


def say_started(gate: str = "GATE") -> None:
    """Tell the test that a request is inside the application."""
    with open(Path(os.environ[gate]) / "started", "wb", buffering=0) as started:
        started.write(b"x")


def hold(gate: str = "GATE") -> None:
    """Wait until the test lets it go on; whoever shares the thread waits too."""
    say_started(gate)
    with open(Path(os.environ[gate]) / "release", "rb", buffering=0) as release:
        release.read(1)


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
    elif path == "/hold":
        hold()
    elif path == "/hang":
        hang_in_c()
    elif path == "/spin":
        spin()
    elif path.startswith("/stay/"):
        stay_in_c(float(path[6:]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"alive"]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Do what the path says, in an event loop."""
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    path = scope["path"]
    if path == "/begin":
        await send(HEAD | {"headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        say_started()
        await asyncio.sleep(LONG_S)
    elif path == "/wait":
        say_started()
        await asyncio.sleep(LONG_S)
    elif path == "/hold":
        hold()
    elif path == "/hang":
        hang_in_c()
    elif path == "/spin":
        spin()
    elif path.startswith("/stay/"):
        stay_in_c(float(path[6:]))
    elif path == "/body":
        while (await receive()).get("more_body"):
            pass
    await send(HEAD)
    await send({"type": "http.response.body", "body": b"alive"})


def make_tornado() -> Any:
    """Give an application that does the same in Tornado."""
    from tornado.web import Application, RequestHandler

    class Handler(RequestHandler):
        async def get(self) -> None:
            path = self.request.path
            self.set_header("Content-Type", "text/plain")
            if path == "/begin":
                self.set_header("Content-Length", "10")
                self.write("begun")
                await self.flush()
            if path in ("/begin", "/wait"):
                say_started()
                await asyncio.sleep(LONG_S)
            elif path == "/hold":
                hold()
            elif path == "/hang":
                hang_in_c()
            elif path == "/spin":
                spin()
            elif path.startswith("/stay/"):
                stay_in_c(float(path[6:]))
            self.write("alive")

        async def head(self) -> None:
            await self.get()

        async def post(self) -> None:
            await self.get()

    return Application([("/.*", Handler)])


async def echo(receive: Any, send: Any) -> None:
    """Accept, and send back what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
