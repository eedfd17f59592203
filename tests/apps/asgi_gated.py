"""Holds the whole loop of its worker until the test lets it go on (harness.gate), as no coroutine should."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]


async def app(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
    """Block the loop for /held, wait in it for /waits, and answer anything else at once."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/held":
        hold()
    if scope["path"] == "/waits":
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


def hold() -> None:
    """Say that the loop is held, and hold it."""
    gate = Path(os.environ["GATE"])
    with open(gate / "started", "wb", buffering=0) as started:
        started.write(b"x")
    with open(gate / "release", "rb", buffering=0) as release:
        release.read(1)
