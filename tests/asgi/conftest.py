"""Servers that the tests of one module share, and uvicorn to compare them with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from harness.server import DEADLINE_S, Output, Serve, Server
from workers.classes import LOOPS


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start servers that end with the module."""
    starter = Serve(tmp_path_factory.mktemp("asgi"))
    yield starter
    starter.close()


@pytest.fixture(scope="module", params=LOOPS)
def routes(request: pytest.FixtureRequest, serve_module: Serve) -> Server:
    """`asgi_routes` on each loop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return serve_module("asgi_routes:app", "-k", "asgi", "--asgi-loop", request.param)


@pytest.fixture(scope="module")
def uvicorn_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], int]]:
    """Start uvicorn with an application; give its port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(app: str) -> int:
        server = Server(app, directory=tmp_path_factory.mktemp("uvicorn"))  # for its environment only
        command = [sys.executable, "-m", "uvicorn", "--port", "0", "--log-level", "info", "--no-access-log", app]
        process = subprocess.Popen(command, env=server.env, cwd=server.directory, stderr=subprocess.PIPE)
        running.append(process)
        assert process.stderr is not None
        output = Output(process.stderr)
        found = output.wait_for(lambda text: re.search(r"running on \S+:(\d+)", text), DEADLINE_S, "the port")
        return int(found[1])

    yield start
    for process in running:
        process.terminate()
        process.wait(DEADLINE_S)
