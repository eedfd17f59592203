"""The `sync` worker: one application call at a time, on the main thread."""

from __future__ import annotations

import sys
from typing import ClassVar

from bicorn._core import SyncLoop
from bicorn.workers.native import NativeWorker


class SyncWorker(NativeWorker):
    """Runs the application in the native loop's own thread."""

    COLLECTS: ClassVar[bool] = True

    loop: SyncLoop | None = None

    def make_loop(self) -> SyncLoop:
        wake_fd = self.PIPE[0] if self.PIPE else None
        return SyncLoop(**self.site(), timeout=float(self.cfg.timeout), wake_fd=wake_fd)

    def serve(self) -> None:
        assert self.loop is not None, "made by run()"
        self.loop.run()

    def connections_max(self) -> int:
        # As in Gunicorn, worker_connections is nothing to this class: an idle connection costs half a kilobyte.
        return sys.maxsize
