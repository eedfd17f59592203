"""A Socket.IO server: polling, the upgrade to WebSocket, rooms and acknowledgements."""

from __future__ import annotations

from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.event  # type: ignore[untyped-decorator]  # socketio is not typed
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any] | None) -> None:
    """Refuse who gives no name."""
    if not auth or "name" not in auth:
        raise socketio.exceptions.ConnectionRefusedError("no name")
    await server.save_session(sid, {"name": auth["name"]})
    await server.enter_room(sid, "all")


@server.event  # type: ignore[untyped-decorator]  # as above
async def say(sid: str, words: str) -> str:
    """Tell the room, and acknowledge."""
    session = await server.get_session(sid)
    await server.emit("said", {"name": session["name"], "words": words}, room="all")
    return f"{len(words)} letters"


@server.event  # type: ignore[untyped-decorator]  # as above
async def blob(sid: str, data: bytes) -> bytes:
    """Bytes, turned round."""
    return data[::-1]
