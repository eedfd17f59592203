"""Workers that have served their time: too much memory, or old enough.

Owns       the moments at which the arbiter looks, and the reading of a worker's memory from /proc.
Never      drains or spawns: it marks a worker as due, and policy.decide() replaces it. A worker that is too large from
           the start is not marked: its successor would be as well, and so on for ever.
Invariant  looking costs a worker nothing: the resident size is read first, which the kernel has at hand, and only a
           worker above the limit by that measure has its pages counted.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.states import WorkerState

if TYPE_CHECKING:
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.config import Settings
    from bicorn.interfaces import Log

_PSS: Final = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)


def draw_lifetime(settings: Settings) -> float:
    """Give how long a new worker may be ready, in seconds."""
    if not settings.max_worker_lifetime:
        return math.inf
    return settings.max_worker_lifetime + random.uniform(0, settings.max_worker_lifetime_jitter)


class Recycling:
    """Marks workers that are to be replaced, as a duty of the loop."""

    def __init__(self, workers: Iterable[WorkerHandle], settings: Callable[[], Settings], log: Log) -> None:
        self._workers = workers
        self._settings = settings
        self._log = log
        self._weighed_at = -math.inf
        self._at_ready: dict[int, int] = {}  # pid: the bytes that a worker took when it became ready
        self._warned_of = 0  # the limit that was said to be too low

    def fileno(self) -> int:
        return -1

    def wake_at(self) -> float | None:
        settings = self._settings()
        moments = [_expires_at(handle) for handle in self._candidates()]
        if settings.max_worker_memory and moments:
            moments.append(self._weighed_at + settings.worker_memory_interval)
        soonest = min(moments, default=math.inf)
        return soonest if soonest < math.inf else None

    def attend(self, now: float) -> None:
        settings = self._settings()
        for handle in self._candidates():
            if now >= _expires_at(handle):
                self._mark(handle, f"it has been ready for {handle.lifetime_s:.1f} s (max_worker_lifetime)")
        if settings.max_worker_memory:
            self._weigh_new(settings.max_worker_memory)
        if settings.max_worker_memory and now >= self._weighed_at + settings.worker_memory_interval:
            self._weighed_at = now
            self._weigh(settings.max_worker_memory)

    def leave_in_child(self) -> None:
        """Nothing here belongs to the arbiter alone."""

    def _candidates(self) -> list[WorkerHandle]:
        return [handle for handle in self._workers if handle.state is WorkerState.READY and not handle.due]

    def _weigh_new(self, limit: int) -> None:
        """Weigh workers that have just become ready: one that is too large by then is no worse than its successor."""
        ready = {handle.pid for handle in self._workers if handle.state is WorkerState.READY}
        self._at_ready = {pid: self._at_ready.get(pid) or weigh(pid, limit) for pid in ready}
        largest = max(self._at_ready.values(), default=0)
        if largest > limit and self._warned_of != limit:
            self._warned_of = limit
            self._log.warning(
                "max_worker_memory is %d bytes, but a worker takes %d as soon as it is ready: it is not replaced for "
                "that, since its successor would take as much. Raise max_worker_memory",
                limit,
                largest,
            )

    def _weigh(self, limit: int) -> None:
        for handle in self._candidates():
            if self._at_ready[handle.pid] <= limit and (bytes_ := weigh(handle.pid, limit)) > limit:
                self._mark(handle, f"it takes {bytes_} bytes (max_worker_memory is {limit})")

    def _mark(self, handle: WorkerHandle, reason: str) -> None:
        handle.due = reason
        self._log.info("Worker (pid:%s) is going to be replaced: %s", handle.pid, reason)


def _expires_at(handle: WorkerHandle) -> float:
    assert handle.ready_at is not None, "a candidate is ready"
    return handle.ready_at + handle.lifetime_s


def weigh(pid: int, limit: int) -> int:
    """Give what a process takes, exactly only if it may be more than the limit."""
    resident = read_rss_bytes(pid)
    return read_pss_bytes(pid) if resident > limit else resident


def read_rss_bytes(pid: int) -> int:
    """Give the resident set size of a process, 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def read_pss_bytes(pid: int) -> int:
    """Give the proportional set size: a page that n processes share counts an nth. Where it is hidden, the resident."""
    with contextlib.suppress(OSError):
        # Linux 4.14 has it; a hardened /proc lets only root see it of a process that changed its user.
        found = _PSS.search((Path("/proc") / str(pid) / "smaps_rollup").read_text())
        if found:
            return int(found[1]) * 1024
    return read_rss_bytes(pid)
