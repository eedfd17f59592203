"""FastAPI as people write it: a chat over WebSocket, a guarded one, one of JSON."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException, status
from starlette.responses import JSONResponse

app = FastAPI()
#: Who is in the chat; a worker's own.
members: list[WebSocket] = []
left: list[str] = []


@app.websocket("/chat/{name}")
async def chat(websocket: WebSocket, name: str) -> None:
    """Tell everybody what anybody says."""
    await websocket.accept()
    members.append(websocket)
    try:
        while True:
            words = await websocket.receive_text()
            for member in members:
                await member.send_text(f"{name}: {words}")
    except WebSocketDisconnect as gone:
        members.remove(websocket)
        left.append(f"{name} {gone.code} {gone.reason}")


@app.get("/left")
async def who_left() -> list[str]:
    """Who has left, and how."""
    return left


def token(token: Annotated[str | None, Query()] = None) -> str:
    """Refuse who has none."""
    if token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="no token")
    return token


@app.websocket("/guarded")
async def guarded(websocket: WebSocket, key: Annotated[str, Depends(token)]) -> None:
    """Show the token; close."""
    await websocket.accept(subprotocol="v1" if "v1" in websocket.scope["subprotocols"] else None)
    await websocket.send_json({"token": key, "scheme": websocket.url.scheme, "path": websocket.url.path})
    await websocket.close(code=3001, reason="that was all")


@app.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    """Answer with a response."""
    await websocket.send_denial_response(JSONResponse({"why": "full"}, status_code=429, headers={"retry-after": "5"}))


@app.websocket("/double")
async def double(websocket: WebSocket) -> None:
    """Twice of each number, and of each block."""
    await websocket.accept(headers=[(b"x-accepted", b"yes")])
    async for numbers in websocket.iter_json():
        await websocket.send_json([number * 2 for number in numbers])
        await websocket.send_bytes(bytes(numbers) * 2)


@app.websocket("/broken")
async def broken(websocket: WebSocket) -> None:
    """Fail after the accept."""
    await websocket.accept()
    await websocket.receive_text()
    raise RuntimeError("broken on purpose")
