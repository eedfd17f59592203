"""The same small site as its neighbours, in FastAPI."""

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

app = FastAPI()


@app.get("/")
async def page(request: Request):
    return {"url": str(request.url), "agent": request.headers["X-Agent"]}


@app.post("/echo")
async def echo(request: Request):
    return Response(await request.body(), media_type="application/octet-stream")


@app.get("/stream")
def stream():
    return StreamingResponse((f"{number}\n" for number in range(1000)), media_type="text/plain")


@app.get("/cookies")
async def cookies():
    response = RedirectResponse("/", status_code=302)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/broken")
async def broken():
    raise ValueError("broken on purpose")
