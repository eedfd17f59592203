"""capture_output: what the process prints goes to the error log's file.

Owns       descriptors 1 and 2 while capturing, and copies of the originals to give them back.
Never      touches them when the error log is a standard stream already.
Invariant  descriptors 1 and 2 are always open.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

_STDOUT, _STDERR = 1, 2


class OutputCapture:
    """Standard output and error, redirected to a file and back."""

    def __init__(self) -> None:
        self.file: io.TextIOWrapper | None = None
        self._path: str | None = None
        self._originals: dict[int, int] = {}

    def follow(self, path: str | None) -> None:
        """Capture into `path` from now on, or with None stop capturing."""
        if path is not None:
            self._path = path
            self._redirect(path)
        elif self._path is not None:
            self._restore()

    def reopen(self) -> None:
        """Open the captured file again under its name, after a rotation."""
        if self._path is not None:
            self._redirect(self._path)

    def _redirect(self, path: str) -> None:
        fresh = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - it lives as long as the capture
        _flush()
        for descriptor in (_STDOUT, _STDERR):
            if descriptor not in self._originals:
                self._originals[descriptor] = os.dup(descriptor)
            os.dup2(fresh.fileno(), descriptor)
        if self.file is not None:
            self.file.close()
        self.file = fresh

    def _restore(self) -> None:
        _flush()
        for descriptor, original in self._originals.items():
            os.dup2(original, descriptor)
            os.close(original)
        self._originals.clear()
        if self.file is not None:
            self.file.close()
        self.file = self._path = None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A stream may be gone (a daemon) or in the middle of the write that a signal interrupted.
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
            stream.flush()
