"""An aiohttp application, made at once and by an asynchronous factory, and one whose factory fails."""

import os

from aiohttp import web


async def root(request):
    return web.json_response({"pid": os.getpid()})


async def echo(request):
    return web.json_response({"length": len(await request.read())})


def make():
    made = web.Application()
    made.router.add_get("/", root)
    made.router.add_post("/echo", echo)
    return made


app = make()


async def factory():
    if os.path.exists("broken"):
        raise RuntimeError("the database is away")
    return make()
