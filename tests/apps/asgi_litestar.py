"""A Litestar application as users write them."""

# No `from __future__ import annotations`: Litestar reads the annotations of handlers when it is imported.
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.response import Stream


@get("/json")
async def as_json(name: str = "nobody", count: int = 1) -> dict[str, Any]:
    return {"name": name, "count": count}


@get("/sync", sync_to_thread=True)
def in_a_thread(name: str = "nobody") -> dict[str, str]:
    return {"thread": name}


@post("/body")
async def body(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"size": len(await request.body())}


@get("/stream")
async def stream() -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"piece {number};".encode()

    return Stream(pieces())


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    response = Response(dict(request.cookies))
    response.set_cookie("a", "b")
    return response


@get("/error")
async def error() -> None:
    raise ValueError("an error of the application")


app = Litestar([as_json, in_a_thread, body, stream, cookies, error])
