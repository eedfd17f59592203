"""What the tests of a server's life share: every one of them runs with each worker class."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.server import Serve, Server

WORKER_CLASSES = ("sync", "plain_worker.PlainWorker")
#: Our own: those that lose nothing, whatever happens under load.
LOSSLESS = ("sync",)


@pytest.fixture(params=WORKER_CLASSES)
def start(request: pytest.FixtureRequest, serve: Serve) -> Callable[..., Server]:
    """Start Bicorn with one of the worker classes."""
    return functools.partial(_start, serve, request.param)


def _start(serve: Serve, worker_class: str, app: str | None, *args: str, **options: object) -> Server:
    return serve(app, "-k", worker_class, *args, **options)  # type: ignore[arg-type]  # passed on as they are


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for the application `gated`."""
    directory = tmp_path / "gate"
    directory.mkdir()
    made = Gate(directory)
    yield made
    made.close()
