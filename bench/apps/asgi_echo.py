"""Echoes WebSocket text messages; over plain HTTP it says hello, so that a server can be asked whether it is there."""

from __future__ import annotations

from typing import Any

from bench.apps.asgi_hello import app as hello


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
