"""Servers for the tests of WSGI: every test runs with each class that serves from the native loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import Serve


@pytest.fixture(scope="module", params=["sync", "gthread"])
def worker_class(request: pytest.FixtureRequest) -> str:
    """The class of the workers."""
    name: str = request.param
    return name


def class_arguments(worker_class: str) -> list[str]:
    """Choose a worker class; one with threads has two of them, so that they do take turns."""
    return ["-k", worker_class, *(["--threads", "2"] if worker_class == "gthread" else [])]


@pytest.fixture(scope="module")
def serve_module(worker_class: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start servers that end with the module."""
    starter = Serve(tmp_path_factory.mktemp("wsgi"), *class_arguments(worker_class))
    yield starter
    starter.close()


@pytest.fixture
def serve(worker_class: str, tmp_path: Path) -> Iterator[Serve]:
    """Start servers that end with the test; each has a directory of its own."""
    starter = Serve(tmp_path, *class_arguments(worker_class))
    yield starter
    starter.close()
