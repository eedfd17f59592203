"""Flask with WebSockets, by Flask-Sock: the application takes its connection over from the server."""

import os

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@app.get("/")
def page():
    return {"pid": os.getpid()}


@sock.route("/ws")
def talk(ws):
    while True:
        ws.send(ws.receive().upper())
