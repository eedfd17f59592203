"""The same small site as its neighbours, in aiohttp."""

from aiohttp import web


async def page(request):
    return web.json_response({"url": str(request.url), "agent": request.headers["X-Agent"]})


async def echo(request):
    return web.Response(body=await request.read())


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(1000):
        await response.write(f"{number}\n".encode())
    return response


async def cookies(request):
    response = web.HTTPFound("/")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


async def broken(request):
    raise ValueError("broken on purpose")


app = web.Application(client_max_size=2**24)
app.router.add_get("/", page)
app.router.add_post("/echo", echo)
app.router.add_get("/stream", stream)
app.router.add_get("/cookies", cookies)
app.router.add_get("/broken", broken)
