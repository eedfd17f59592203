"""The threads in which WSGI applications are called beside an event loop.

Owns       what happens when the system gives no thread more: a limit on processes, which counts threads as well.
Never      calls the application for a request that was answered with an error instead.
Invariant  as long as one thread is there, every request is run sometime, by one of those that are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bicorn.interfaces import Log


class ThreadPool(ThreadPoolExecutor):
    """An executor that makes do with the threads it got; only one thread, the loop's, may submit."""

    def __init__(self, threads: int, log: Log) -> None:
        super().__init__(threads, thread_name_prefix="wsgi")
        self._log = log
        self._has_told = False

    def _adjust_thread_count(self) -> None:
        # Called by submit() when the request is in the queue already. An exception from here would answer it 500, and
        # it would be run all the same.
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                self._work_queue.get_nowait()  # Nobody takes it, and there is no other.
                raise
            if not self._has_told:
                self._has_told = True
                self._log.warning("Requests wait for the %d threads that there are: %s", len(self._threads), error)
