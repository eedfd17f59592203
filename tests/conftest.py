"""Fixtures that every test folder shares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.server import Serve


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers that end with the test; each has a directory of its own."""
    starter = Serve(tmp_path)
    yield starter
    starter.close()
