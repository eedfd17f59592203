"""What the log says about requests that take too long.

Owns       the report of a worker that missed its heartbeat, and the samples of slow requests (slow_request_log).
Never      ends a request: policy decides when a worker is too late.
Invariant  a request is sampled at most once, and the whole server at most once a second, however many are slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.states import WorkerState
from bicorn.ipc.scoreboard import CurrentRequest

if TYPE_CHECKING:
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.stacks import StackCollector
    from bicorn.config import Settings
    from bicorn.interfaces import Log

#: Looks within one slow_request_log: a slow request is sampled at most a quarter later than it could be.
LOOKS: Final = 4
LOOK_INTERVAL_MIN_S: Final = 0.05
#: Seconds between two samples. Of many requests that are slow for the same reason, the first ones say it.
SAMPLE_INTERVAL_S: Final = 1.0
#: Of a worker's samples so many are remembered, so that a request that comes into view again is not taken for another.
SAMPLED_MAX: Final = 64


class RequestWatch:
    """Looks at the current request of each worker, which stands on the scoreboard anyway: quick ones cost nothing."""

    def __init__(
        self,
        workers: Iterable[WorkerHandle],
        settings: Callable[[], Settings],
        collector: StackCollector,
        log: Log,
    ) -> None:
        self._workers = workers
        self._settings = settings
        self._collector = collector
        self._log = log
        self._looked_at = 0.0
        self._sampled_at = 0.0
        self._sampled: dict[int, deque[CurrentRequest]] = {}  # pid: the last requests that were sampled

    # -- timeouts ------------------------------------------------------------------------------

    def report_stuck(self, handle: WorkerHandle, silent_s: float, now: float, then: Callable[[], None]) -> None:
        """Log what a worker was doing that is about to be aborted, with its stacks as soon as they are there.

        `then` is called when they are, or will not come.
        """
        line = (
            f"Worker (pid:{handle.pid}, {handle.state.value}) gave no sign of life for {silent_s:.1f} s; "
            f"serving: {serving(handle, now) or 'no request'}"
        )

        def tell(text: str) -> None:
            self._log.error("%s\n%s", line, text)
            then()

        self._collector.seize(handle, now, tell)

    # -- slow requests, as a duty of the loop ----------------------------------------------------

    def fileno(self) -> int:
        return -1

    def wake_at(self) -> float | None:
        slow_s = self._settings().slow_request_log
        return self._looked_at + max(slow_s / LOOKS, LOOK_INTERVAL_MIN_S) if slow_s else None

    def attend(self, now: float) -> None:
        wake_at = self.wake_at()
        if wake_at is None or now < wake_at:
            return
        self._looked_at = now
        living = list(self._workers)
        self._sampled = {handle.pid: self._sampled.get(handle.pid, deque(maxlen=SAMPLED_MAX)) for handle in living}
        for handle in living:
            request = self._slow_request(handle, now)
            if request is not None and now - self._sampled_at >= SAMPLE_INTERVAL_S:
                self._sample(handle, request, now)

    def leave_in_child(self) -> None:
        self._sampled.clear()

    def _slow_request(self, handle: WorkerHandle, now: float) -> CurrentRequest | None:
        """Give the request of a worker that is slow and has not been sampled, if there is one."""
        # A worker that is being ended for its timeout says all that there is to say.
        if handle.state not in (WorkerState.READY, WorkerState.DRAINING):
            return None
        slow_s, sampled = self._settings().slow_request_log, self._sampled[handle.pid]
        slow = (each for each in CurrentRequest.all_of(handle.slot.snapshot()) if each.age_s(now) >= slow_s)
        return next((each for each in slow if not any(map(each.is_same, sampled))), None)

    def _sample(self, handle: WorkerHandle, request: CurrentRequest, now: float) -> None:
        self._sampled_at = now
        self._sampled[handle.pid].append(request)
        line = f"Slow request in worker (pid:{handle.pid}): {named(request, now)}"

        def tell(text: str) -> None:
            if not any(map(request.is_same, CurrentRequest.all_of(handle.slot.snapshot()))):
                self._log.warning("%s; it ended before its stacks were taken", line)
            else:
                self._log.warning("%s\n%s", line, text)

        self._collector.ask(handle, now, tell)


def serving(handle: WorkerHandle, now: float) -> str:
    """Give in words what a worker is busy with, or was when it died; nothing if there is no request."""
    request = CurrentRequest.of(handle.slot.snapshot())
    if request is None:
        return ""
    return named(request, now) + (f", the oldest of {request.among}" if request.among > 1 else "")


def named(request: CurrentRequest, now: float) -> str:
    """Give a request and its age in words."""
    return f"{request.line} (for {request.age_s(now):.1f} s)"
