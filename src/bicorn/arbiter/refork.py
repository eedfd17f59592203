"""Making a template of a worker that has served: new workers share what it has loaded and cached (refork).

Owns       the choice of that worker.
Never      forks or drains: the chosen one is replaced as a worn one is, and becomes a template when it has drained.
Invariant  one worker at a time is chosen, and no other after one of the generation has become a template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.states import WorkerState

if TYPE_CHECKING:
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.interfaces import Log

#: How often the counters of the workers are looked at, in seconds.
LOOK_INTERVAL_S: Final = 1.0


class Refork:
    """Chooses the worker that is to become a template, as a duty of the loop."""

    def __init__(self, workers: Iterable[WorkerHandle], settled: Callable[[], Generation | None], log: Log) -> None:
        """`settled` gives the generation in force while nothing is being reloaded or stopped."""
        self._workers = workers
        self._settled = settled
        self._log = log
        self._looked_at = 0.0

    def fileno(self) -> int:
        return -1

    def wake_at(self) -> float | None:
        return self._looked_at + LOOK_INTERVAL_S if self._awaited() else None

    def attend(self, now: float) -> None:
        requests = self._awaited()
        if not requests or now < self._looked_at + LOOK_INTERVAL_S:
            return
        self._looked_at = now
        if any(handle.is_heir for handle in self._workers):
            return
        for handle in self._workers:
            if handle.state is WorkerState.READY and handle.slot.snapshot()["requests"] >= requests:
                handle.is_heir = True
                handle.due = f"it has served {requests} requests (refork)"
                self._log.info("Worker (pid:%s) is going to be the template of new workers", handle.pid)
                return

    def leave_in_child(self) -> None:
        """Nothing here belongs to the arbiter alone."""

    def _awaited(self) -> int:
        """Give how many requests a worker has to serve, 0 if no worker is wanted."""
        generation = self._settled()
        if generation is None or generation.is_warm or generation.was_reforked:
            return 0
        return generation.settings.refork
