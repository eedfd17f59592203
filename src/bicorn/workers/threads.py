"""The `gthread` worker: several threads run the application, the main thread speaks for them.

Owns       the threads, and what is said when a request takes longer than `timeout`.
Never      runs the application on the main thread, so signals are never late.
Invariant  a request that takes too long costs its own answer and the worker's further life, not the answers of others.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import ClassVar

from bicorn._core import ThreadLoop
from bicorn.workers.native import NativeWorker


class ThreadWorker(NativeWorker):
    """Runs the application in `threads` threads."""

    MULTITHREAD: ClassVar[bool] = True
    COLLECTS: ClassVar[bool] = True

    loop: ThreadLoop | None = None

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # passed on as the arbiter gives them
        self.threads: list[threading.Thread] = []

    def make_loop(self) -> ThreadLoop:
        wake_fd = self.PIPE[0] if self.PIPE else None
        return ThreadLoop(**self.site(), threads=self.cfg.threads, timeout=float(self.cfg.timeout), wake_fd=wake_fd)

    def capacity(self) -> int:
        return self.cfg.threads

    def serve(self) -> None:
        loop = self.loop
        assert loop is not None, "made by run()"
        for number in range(self.cfg.threads):
            # Daemons: a thread that never comes back from its request must not keep the process.
            thread = threading.Thread(target=loop.work, args=(number,), name=f"bicorn-{number}", daemon=True)
            thread.start()
            self.threads.append(thread)
        loop.watch()

    def has_stuck_threads(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def request_late(self, thread: int, request: str, age_s: float, answered: bool) -> None:
        """A request takes longer than `timeout`: say where it is; its thread cannot be taken back, so others follow."""
        told = "its client was answered 504" if answered else "its answer had begun and was broken off"
        self.log.critical(
            "WORKER TIMEOUT (pid:%s): %s has taken %.1f s in thread %s; %s. The other threads serve on until a new "
            "worker is ready.\n%s",
            self.pid, request, age_s, self.threads[thread].name, told, self._stack(thread),
        )  # fmt: skip
        self.cfg.worker_abort(self)
        self.ask_for_successor(f"a request has taken longer than {self.cfg.timeout} seconds (timeout)")

    def _stack(self, thread: int) -> str:
        frame = sys._current_frames().get(self.threads[thread].ident or 0)
        return "".join(traceback.format_stack(frame)).rstrip("\n") if frame is not None else "(no Python frame)"
