"""The worker class in the documentation works as it is printed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from harness.server import Serve, Server

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "custom-workers.md"


@pytest.fixture
def start(serve: Serve) -> Server:
    """Start two workers of the printed class."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{PAGE} has no example"
    return serve(
        "hello:app", "-k", "printed.WsgirefWorker", "-w", "2", "--log-level", "debug", "--max-requests", "5",
        files={"printed.py": found[1]},
    )  # fmt: skip


def test_it_answers_and_stops(start: Server) -> None:
    start.wait_for_ready(2)
    assert start.get("/").status == 200
    start.wait_for_log("/ answered with 200")
    assert start.stop() == 0


def test_it_reloads(start: Server) -> None:
    before = start.wait_for_ready(2)
    start.signal(signal.SIGHUP)
    start.wait_for_workers(2, without=before)
    assert start.get("/").status == 200


def test_it_is_replaced_after_max_requests(start: Server) -> None:
    start.wait_for_ready(2)
    for _ in range(10):
        assert start.get("/").status == 200
    start.wait_for_log("Autorestarting worker after current request")
    start.wait_for_log(r"Worker exiting")
    start.wait_for_ready(3)
