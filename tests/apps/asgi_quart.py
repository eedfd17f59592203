"""A Quart application as users write them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, jsonify, request

app = Quart(__name__)


@app.get("/json")
async def as_json() -> Response:
    return jsonify(name=request.args.get("name", "nobody"))


@app.get("/sync")
def in_a_thread() -> dict[str, str]:
    return {"thread": request.path}


@app.post("/body")
async def body() -> dict[str, Any]:
    return {"size": len(await request.get_data())}


@app.get("/stream")
async def stream() -> Any:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"piece {number};".encode()

    return pieces(), 200, {"content-type": "text/plain"}


@app.get("/cookies")
async def cookies() -> Response:
    response = jsonify(dict(request.cookies))
    response.set_cookie("a", "b")
    return response


@app.get("/error")
async def error() -> Response:
    raise ValueError("an error of the application")
