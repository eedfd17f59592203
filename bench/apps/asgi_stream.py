"""1 MiB in 64 sends of 16 KiB; its length is not said beforehand, as with most that is streamed."""

from __future__ import annotations

from typing import Any

from bench.apps.lifespan import lifespan

PART = b"0123456789abcdef" * 1024
PARTS = 64
HEADERS = [(b"content-type", b"application/octet-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    for _ in range(PARTS):
        await send({"type": "http.response.body", "body": PART, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
