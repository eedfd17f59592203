"""What every test of the configuration stands on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bicorn.config import Settings, load_settings

Load = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a load put its directory on sys.path, and leave imported configurations behind, without others noticing."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def warnings() -> list[str]:
    """Collect what a load warns of."""
    return []


@pytest.fixture
def load(tmp_path: Path, warnings: list[str]) -> Load:
    """Load settings in a directory of the test's own, with an empty environment."""

    def load_there(*argv: str, files: dict[str, str] | None = None, **environ: str) -> Settings:
        for name, text in (files or {}).items():
            (tmp_path / name).write_text(text)
        return load_settings(argv, environ, cwd=os.fspath(tmp_path), warn=warnings.append)

    return load_there
