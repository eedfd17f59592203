"""The same small site in each framework, under each worker class that it fits: one server for each pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.server import Serve, Server
from workers.classes import ALL

PROJECTS: Final = Path(__file__).parent / "projects"
ASGI: Final = ("asgi", "uvicorn_worker.UvicornWorker")
FITTING: Final = {
    "same_flask:app": ALL,
    "same_django:app": ALL,
    "same_django:asgi": ASGI,
    "same_fastapi:app": ASGI,
    "same_aiohttp:app": ("aiohttp.GunicornWebWorker",),
    "same_tornado:app": ("tornado",),
}
PAIRS: Final = [(app, worker_class) for app, classes in FITTING.items() for worker_class in classes]
AGENT: Final = {"X-Agent": "test"}


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start servers that end with the module."""
    return Serve(tmp_path_factory.mktemp("frameworks"))


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def server(request: pytest.FixtureRequest, serve_module: Serve) -> Iterator[Server]:
    """One framework's site under one worker class."""
    app, worker_class = request.param
    file = f"{app.partition(':')[0]}.py"
    with serve_module(app, "-k", worker_class, files={file: (PROJECTS / file).read_text()}) as started:
        yield started


def test_the_site(server: Server) -> None:
    # One test for one server: each of them takes a second to start.
    page = json.loads(server.get("/?a=b%20c", headers=AGENT).body)
    assert page == {"url": "http://test.example/?a=b%20c", "agent": "test"}
    for body in (b"", b"short", b"\x00\xff" * 1_000_000):
        assert server.get("/echo", method="POST", body=body, headers={"Content-Length": str(len(body))}).body == body
    assert server.get("/stream").body == b"".join(b"%d\n" % number for number in range(1000))
    answer = server.get("/cookies")
    assert answer.status == 302
    assert answer.header("Location") == "/"
    cookies = [value.partition(";")[0] for name, value in answer.headers if name.lower() == "set-cookie"]
    assert cookies == ["a=1", "b=2"]
    assert server.get("/broken").status == 500
    assert server.get("/missing").status == 404
    assert server.get("/", method="HEAD", headers=AGENT).body == b""
    with server.connection() as (sock, reader):
        for _ in range(3):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\nX-Agent: test\r\n\r\n")
            assert reader.read_answer().status == 200
