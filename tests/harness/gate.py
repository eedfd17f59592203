"""A request that the test holds in the middle: it knows when the application runs, and says when it may go on.

Owns       two FIFOs in a directory that the application `gated` finds in its environment as GATE.
Never      waits without a deadline.
Invariant  both ends are open here from the start, so neither side blocks in open().
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from harness.server import DEADLINE_S


class Gate:
    """Holds every request of the application `gated` until release()."""

    def __init__(self, directory: Path) -> None:
        self.env = {"GATE": str(directory)}
        self._ends = {}
        for name in ("started", "release"):
            os.mkfifo(directory / name)
            self._ends[name] = os.open(directory / name, os.O_RDWR | os.O_NONBLOCK)

    def wait_started(self, timeout: float = DEADLINE_S) -> None:
        """Wait until one more request is inside the application."""
        poll = select.poll()
        poll.register(self._ends["started"], select.POLLIN)
        assert poll.poll(timeout * 1000), f"no request reached the application within {timeout} s"
        os.read(self._ends["started"], 1)

    def release(self, count: int = 1) -> None:
        """Let held requests go on."""
        os.write(self._ends["release"], b"x" * count)

    def close(self) -> None:
        """Close both FIFOs."""
        for end in self._ends.values():
            os.close(end)
