"""What the tests of single worker classes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.server import Serve


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for an application that waits in the middle of a request."""
    directory = tmp_path / "gate"
    directory.mkdir()
    made = Gate(directory)
    yield made
    made.close()


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start servers that end with the module."""
    starter = Serve(tmp_path_factory.mktemp("workers"))
    yield starter
    starter.close()
