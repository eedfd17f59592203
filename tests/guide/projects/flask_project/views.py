"""The project's pages."""

import os
import threading

from flask import Blueprint

pages = Blueprint("pages", __name__)

VERSION = 1


@pages.get("/")
def index() -> str:
    return f"version {VERSION}"


@pages.get("/slow")
def slow() -> str:
    """Answers when the test says so."""
    directory = os.environ["GATE"]
    with open(f"{directory}/started", "wb") as started:
        started.write(b"x")
    with open(f"{directory}/release", "rb", buffering=0) as release:
        release.read(1)
    return "done"


@pages.get("/stuck")
def stuck() -> str:
    """Never answers: a deadlock, for example."""
    threading.Event().wait()
    return "never"
