"""A FastAPI application as users write them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

ended: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Put something into the state."""
    yield {"started": "yes"}


app = FastAPI(lifespan=lifespan)
app.add_middleware(GZipMiddleware, minimum_size=100_000)


class Stamp(BaseHTTPMiddleware):
    """Run each request in a task group, as this middleware does."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Add a field."""
        response = await call_next(request)
        response.headers["x-stamp"] = request.state.started
        return response


app.add_middleware(Stamp)


@app.get("/json")
async def as_json(name: str = "nobody", count: int = 1) -> dict[str, Any]:
    return {"name": name, "count": count}


@app.get("/sync")
def in_a_thread(name: str = "nobody") -> dict[str, str]:
    return {"thread": name}


async def dependency() -> AsyncIterator[str]:
    """Be entered and left around the request."""
    yield "dependent"
    ended.append("dependency")


@app.get("/dependency")
async def with_dependency(value: Annotated[str, Depends(dependency)]) -> dict[str, str]:
    return {"value": value}


@app.post("/upload")
async def upload(file: Annotated[UploadFile, File()], note: Annotated[str, Form()]) -> dict[str, Any]:
    return {"name": file.filename, "size": len(await file.read()), "note": note}


@app.post("/body")
async def body(request: Request) -> dict[str, Any]:
    return {"size": sum([len(chunk) async for chunk in request.stream()])}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"piece {number};".encode()
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/stream-sync")
def stream_sync() -> StreamingResponse:
    def pieces() -> Iterator[str]:
        for number in range(5):
            yield f"piece {number};"

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/events")
async def events(request: Request) -> StreamingResponse:
    async def messages() -> AsyncIterator[str]:
        for number in range(3):
            yield f"id: {number}\ndata: tick\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(messages(), media_type="text/event-stream")


@app.get("/background")
async def background(tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(ended.append, "background")
    return {"later": "yes"}


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(__file__, media_type="text/x-python", headers={"etag": "same", "last-modified": "same"})


@app.get("/redirect")
async def redirect() -> RedirectResponse:
    return RedirectResponse("/json?name=redirected")


@app.get("/missing")
async def missing() -> None:
    raise HTTPException(404, "nothing here")


@app.get("/error")
async def error() -> None:
    raise ValueError("an error of the application")


@app.get("/cookies")
async def cookies(request: Request, response: Response) -> dict[str, Any]:
    response.set_cookie("a", "b")
    response.set_cookie("c", "d")
    return dict(request.cookies)


@app.get("/request/{rest:path}")
async def request_parts(request: Request) -> dict[str, Any]:
    return {
        "path": request.url.path,
        "query": request.url.query,
        "host": request.url.hostname,
        "rest": request.path_params["rest"],
    }
