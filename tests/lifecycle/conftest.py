"""What the tests of a server's life share: every one of them runs with each worker class."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from harness.server import Serve, Server

WORKER_CLASSES = ("sync", "plain_worker.PlainWorker")
#: Our own: those that lose nothing, whatever happens under load.
LOSSLESS = ("sync", "gthread", "gevent", "eventlet", "asgi", "tornado")


@pytest.fixture(params=WORKER_CLASSES)
def start(request: pytest.FixtureRequest, serve: Serve) -> Callable[..., Server]:
    """Start Bicorn with one of the worker classes."""
    return functools.partial(_start, serve, request.param)


def _start(
    serve: Serve, worker_class: str, app: str | None, *args: str, log_level: str = "info", **options: object
) -> Server:
    arguments = ("-k", worker_class, "--log-level", log_level, *args)
    return serve(app, *arguments, **options)  # type: ignore[arg-type]  # passed on as they are


@pytest.fixture(params=LOSSLESS)
def lossless(request: pytest.FixtureRequest, serve: Serve) -> Callable[..., Server]:
    """Start Bicorn with one of the worker classes that lose nothing, and a log that says when workers are ready."""
    return functools.partial(_start, serve, request.param, log_level="debug")
