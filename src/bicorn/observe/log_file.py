"""The handler that writes a log file.

Owns       whose the file is, and what happens to a record that it does not take: the disk is full, or over a quota.
Never      lets a log cost a request, a reload or a stop.
Invariant  however many records are lost, stderr gets one line a minute about them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
import time
from typing import Final

#: logging's own way is a page of traceback for each record, into a journal that often lies on the same disk.
REPORT_INTERVAL_S: Final = 60.0


class LogFileHandler(logging.FileHandler):
    """A FileHandler for files on disks that may be full."""

    def __init__(self, filename: str, *, owner: tuple[int, int] | None = None) -> None:
        """`owner` is the user and group whose the file shall be, and each new one after a rotation."""
        self._owner = owner
        super().__init__(filename)
        self._lost = 0
        self._reported_at = float("-inf")

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        # Never a device: /dev/null is everybody's.
        if self._owner is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            with contextlib.suppress(OSError):  # Without root there is nobody else to give it to.
                os.fchown(stream.fileno(), *self._owner)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Called in the handling of an exception: count the record, and say so once a minute."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)  # A mistake in the record, which only the traceback finds.
            return
        self._lost += 1
        now = time.monotonic()
        if now - self._reported_at >= REPORT_INTERVAL_S and sys.stderr is not None:
            self._reported_at = now
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(
                    f"Cannot write to the log file {self.baseFilename!r}: {error.strerror}; lines lost: {self._lost}\n"
                )

    def close(self) -> None:
        """Close the file, and forget what it did not take."""
        with contextlib.suppress(OSError):
            super().close()
