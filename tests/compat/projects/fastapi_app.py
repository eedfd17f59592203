"""A FastAPI application: HTTP, WebSocket, lifespan, and a configurable failure at its start."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect


@asynccontextmanager
async def lifespan(app: FastAPI):
    if os.path.exists("broken"):
        raise RuntimeError("the database is away")
    app.state.greeting = "hello"
    print("lifespan begins", flush=True)
    yield
    print("lifespan ends", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root(request: Request):
    return {"greeting": request.app.state.greeting, "pid": os.getpid()}


@app.post("/echo")
async def echo(request: Request):
    return {"length": len(await request.body())}


@app.get("/blocking")
def blocking():
    return {"pid": os.getpid()}


@app.websocket("/ws")
async def talk(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.send_text((await websocket.receive_text()).upper())
    except WebSocketDisconnect:
        pass
