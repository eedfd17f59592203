"""Every test here finds the loggers untouched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.logs import loggers_put_back


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with loggers_put_back():
        yield
