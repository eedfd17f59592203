"""Runs uvicorn beside Bicorn, as what an ASGI application is used to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.server import APPS, DEADLINE_S, Output

if TYPE_CHECKING:
    from typing_extensions import Self

RUNNING = re.compile(r"running on http://127\.0\.0\.1:(\d+)")


class Uvicorn:
    """One uvicorn process; use it as a context manager."""

    def __init__(self, app: str, *args: str, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0", *args],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(APPS), "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        self._errors = Output(self._process.stderr)
        self.port = int(self.wait_for_log(RUNNING.pattern)[1])

    def wait_for_log(self, pattern: str, timeout: float = DEADLINE_S) -> re.Match[str]:
        """Wait for a regular expression in its log."""
        return self._errors.wait_for(re.compile(pattern).search, timeout, f"/{pattern}/")

    @property
    def log(self) -> str:
        """Everything written so far."""
        return self._errors.text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._errors.join(2)
