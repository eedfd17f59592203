"""What the tests of single worker classes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.server import Serve


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start servers that end with the module."""
    starter = Serve(tmp_path_factory.mktemp("workers"))
    yield starter
    starter.close()
