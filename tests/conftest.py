"""Fixtures that every test folder shares."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.gate import Gate
from harness.overload import Connect
from harness.server import Serve


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers that end with the test; each has a directory of its own."""
    starter = Serve(tmp_path)
    yield starter
    starter.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for an application that waits in the middle of a request."""
    directory = tmp_path / "gate"
    directory.mkdir()
    made = Gate(directory)
    yield made
    made.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(server.connect())
