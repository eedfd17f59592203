"""A small Flask application: a page, an answer in JSON, an upload. `make serve` runs it."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, render_template, request

app = Flask(__name__)


@app.get("/")
def index() -> str:
    """Show what the server says about this request."""
    environ = request.environ
    facts = {
        "server": environ["SERVER_SOFTWARE"],
        "worker process": os.getpid(),
        "its parent, the arbiter": os.getppid(),
        "your address": environ["REMOTE_ADDR"],
        "protocol": environ["SERVER_PROTOCOL"],
    }
    return render_template("index.html", facts=facts, headers=sorted(request.headers.items()))


@app.get("/json")
def json() -> dict[str, Any]:
    """Answer in JSON: what Flask makes of a dict."""
    return {"message": "hello", "worker": os.getpid()}


@app.post("/upload")
def upload() -> dict[str, int]:
    """Count the bytes of a request's body. Try: curl --data-binary @README.md 127.0.0.1:8000/upload"""
    return {"bytes": len(request.get_data())}
