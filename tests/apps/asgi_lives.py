"""ASGI applications with lifespans of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Start, serve the state, and end: says so on stdout."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["shared"] = ["from", "startup"]
        scope["state"]["pid"] = os.getpid()
        print("started", flush=True)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    scope["state"]["added"] = True
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(sorted(scope["state"])).encode()})


async def failing(scope: Message, receive: Receive, send: Send) -> None:
    """Say that the startup failed."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


async def raising(scope: Message, receive: Receive, send: Send) -> None:
    """Raise in the startup."""
    await receive()
    raise ZeroDivisionError("in the startup")


async def hanging(scope: Message, receive: Receive, send: Send) -> None:
    """Never answer."""
    print("hanging", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)


async def stopped_as_it_starts(scope: Message, receive: Receive, send: Send) -> None:
    """Be told to stop some turns of the loop before the startup is complete; say what is received then."""
    await receive()
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(int(os.environ["TURNS"])):
        await asyncio.sleep(0)
    await send({"type": "lifespan.startup.complete"})
    print("complete", flush=True)
    print((await receive())["type"], flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def failing_at_the_end(scope: Message, receive: Receive, send: Send) -> None:
    """Start, and fail to end."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is stuck"})


class Twice:
    """ASGI 2: called with the scope, then with the rest."""

    def __init__(self, scope: Message) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Answer."""
        if self.scope["type"] != "http":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"twice"})
