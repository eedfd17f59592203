"""How many workers the load asks for (workers_min, workers_max).

Owns       the measure of saturation, and the rule that makes a number of workers of it.
Never      forks: it sets the number that policy.decide() holds.
Invariant  rescale() is pure. A load has to last before it acts, and the bound for fewer workers lies below the one for
           more, so that a step is not taken back by the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.states import WorkerState
from bicorn.net.listener import accept_queue

if TYPE_CHECKING:
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.config import Settings
    from bicorn.interfaces import Log

#: Above this share of busy workers the next request will probably wait: with four workers, 0.8⁴ is 41 %.
BUSY_HIGH: Final = 0.8
#: A worker is superfluous if the others were no busier than this without it.
BUSY_LOW: Final = 0.6
#: A complete request that waits longer than this for the application, or for the event loop, is waiting for a worker.
WAITED_HIGH_S: Final = 0.05
#: Of the workers there are, a quarter is added at a time, and at least one.
GROWTH_SHARE: Final = 4
#: How often the scoreboard is looked at, and how many looks make one measurement.
LOOK_INTERVAL_S: Final = 0.25
LOOKS: Final = 4
#: Worker classes in which a request holds a thread; in the others one worker serves many at a time.
_THREADED: Final = frozenset({"sync", "gthread"})


@dataclasses.dataclass(frozen=True)
class Load:
    """One measurement."""

    busy: float  # the share of what the workers can do at a time that is in use
    waited_s: float  # how long requests waited for the application, on average, or the event loop's delay
    queued: int  # connections that nobody has accepted

    @property
    def is_waiting(self) -> bool:
        """Whether requests wait."""
        return self.queued > 0 or self.waited_s > WAITED_HIGH_S


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The settings that a decision depends on; times in seconds."""

    least: int
    most: int
    up_after: float
    down_after: float


@dataclasses.dataclass(frozen=True)
class Scale:
    """How many workers there should be, and since when the load speaks for more or for fewer."""

    target: int
    high_since: float | None = None
    low_since: float | None = None


def rescale(scale: Scale, load: Load, now: float, bounds: Bounds) -> Scale:
    """Decide after one more measurement."""
    target = min(max(scale.target, bounds.least), bounds.most)
    if target != scale.target:
        return Scale(target)
    if load.is_waiting or load.busy >= BUSY_HIGH:
        since = now if scale.high_since is None else scale.high_since
        if now - since < bounds.up_after or target == bounds.most:
            return Scale(target, high_since=since)
        return Scale(min(target + max(1, target // GROWTH_SHARE), bounds.most))
    if target > bounds.least and load.busy * target <= BUSY_LOW * (target - 1):
        since = now if scale.low_since is None else scale.low_since
        if now - since < bounds.down_after:
            return Scale(target, low_since=since)
        # The measure of the next step starts at once: one worker less each `down_after`.
        return Scale(target - 1, low_since=now)
    return Scale(target)


def first_target(settings: Settings, current: int | None = None) -> int:
    """Give how many workers a generation starts with: what is configured, or within bounds what the load asked for."""
    if not settings.workers_max:
        return settings.workers
    wanted = settings.workers if current is None else current
    return min(max(wanted, settings.workers_min), settings.workers_max)


def places_of(settings: Settings, worker_class: str) -> int:
    """Give how many requests a worker of this class runs at a time when it is busy."""
    return settings.threads if worker_class in _THREADED else settings.worker_connections


class Scaling:
    """Measures the load, as a duty of the loop."""

    def __init__(
        self,
        workers: Iterable[WorkerHandle],
        settled: Callable[[], Generation | None],
        resize: Callable[[int], None],
        log: Log,
    ) -> None:
        """`settled` gives the generation in force while nothing is reloaded or stopped; `resize` sets its number."""
        self._workers = workers
        self._settled = settled
        self._resize = resize
        self._log = log
        self._scale = Scale(0)
        self._looked_at = 0.0
        self._looks: list[Load] = []
        self._waited: dict[int, tuple[int, int]] = {}  # pid: its counters of requests and of their waits, in µs

    def fileno(self) -> int:
        return -1

    def wake_at(self) -> float | None:
        return self._looked_at + LOOK_INTERVAL_S if self._generation() is not None else None

    def attend(self, now: float) -> None:
        generation = self._generation()
        if generation is None or now < self._looked_at + LOOK_INTERVAL_S:
            return
        self._looked_at = now
        ready = [handle for handle in self._workers if handle.state is WorkerState.READY]
        if len(ready) != generation.target:
            self._looks.clear()  # What was asked for last is not there yet: its effect has to be seen first.
            return
        self._looks.append(self._look(ready, generation))
        if len(self._looks) == LOOKS:
            self._decide(generation, now)

    def leave_in_child(self) -> None:
        self._looks.clear()

    def _generation(self) -> Generation | None:
        generation = self._settled()
        # None at all was asked for by WINCH: another arbiter serves.
        return generation if generation is not None and generation.settings.workers_max and generation.target else None

    def _look(self, ready: list[WorkerHandle], generation: Generation) -> Load:
        settings = generation.settings
        places = places_of(settings, ready[-1].turned_into or settings.worker_class_str)
        rows = {handle.pid: handle.slot.snapshot() for handle in ready}
        busy = sum(min(1.0, row["in_flight"] / max(1, places)) for row in rows.values()) / len(rows)
        before, self._waited = self._waited, {pid: (row["requests"], row["waited_sum_us"]) for pid, row in rows.items()}
        requests = sum(self._waited[pid][0] - before[pid][0] for pid in rows if pid in before)
        waited_us = sum(self._waited[pid][1] - before[pid][1] for pid in rows if pid in before)
        lag_us = max(row["loop_lag_us"] for row in rows.values())
        waited_s = max(waited_us / max(1, requests), lag_us) / 1e6
        return Load(busy, waited_s, sum(accept_queue(listener.sock) for listener in generation.listeners))

    def _decide(self, generation: Generation, now: float) -> None:
        looks, self._looks = self._looks, []
        # A queue that is seen at every look stands; one that is seen once is a burst.
        load = Load(
            sum(look.busy for look in looks) / len(looks),
            sum(look.waited_s for look in looks) / len(looks),
            min(look.queued for look in looks),
        )
        settings = generation.settings
        bounds = Bounds(
            max(1, settings.workers_min), settings.workers_max, settings.scale_up_after, settings.scale_down_after
        )
        before = generation.target
        known = self._scale if self._scale.target == before else Scale(before)  # TTIN, TTOU, a reload
        self._scale = rescale(known, load, now, bounds)
        if self._scale.target != before:
            self._log.info(
                "Scaling from %d to %d workers: %.0f %% busy, %d connections queued, requests waited %.0f ms",
                before, self._scale.target, load.busy * 100, load.queued, load.waited_s * 1000,
            )  # fmt: skip
            self._resize(self._scale.target)
