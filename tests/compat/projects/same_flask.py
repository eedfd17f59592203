"""The same small site as its neighbours, in Flask."""

from flask import Flask, Response, redirect, request

app = Flask(__name__)


@app.get("/")
def page():
    return {"url": request.url, "agent": request.headers["X-Agent"]}


@app.post("/echo")
def echo():
    return Response(request.get_data(), content_type="application/octet-stream")


@app.get("/stream")
def stream():
    return Response((f"{number}\n" for number in range(1000)), content_type="text/plain")


@app.get("/cookies")
def cookies():
    response = redirect("/")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/broken")
def broken():
    raise ValueError("broken on purpose")
