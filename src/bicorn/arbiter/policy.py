"""What to do about the workers: a pure function from what is to what should happen.

Owns       every decision about a worker's life: spawn, drain, abort, kill, and when a generation is proven.
Never      forks, signals, waits, logs, or reads a clock: time is a field of the snapshot.
Invariant  the same snapshot gives the same decision, and a decision never asks for an illegal move (see states.py).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator
from typing import Final

from bicorn.arbiter.states import SERVING, WorkerState

#: Seconds between SIGABRT and SIGKILL: long enough to print stacks and run the hook. Gunicorn: its next tick, 1 s.
ABORT_GRACE_S: Final = 1.0
#: After SIGKILL, the seconds in which the kernel gives a process back. One that hangs in a system call longer than
#: this is waited for no more: nothing that we could still do would end it.
KILLED_GRACE_S: Final = 2.0
#: Seconds that everything gets after a stop was hurried. Gunicorn: 2 s.
HURRIED_GRACE_S: Final = 2.0
#: Back-off after workers that die at once: none for the first, then this, doubling up to `respawn_delay_max`.
#: systemd's RestartSec starts at 0.1 s.
BACKOFF_FIRST_S: Final = 0.5
#: A worker that was ready for this long did not die at once.
EARLY_DEATH_S: Final = 1.0
#: Of so many workers one may be replaced at a time by recycling (and always one): never all at once.
RECYCLED_SHARE: Final = 4


class Phase(enum.Enum):
    """What the server as a whole is doing."""

    RUNNING = "running"
    DRAINING = "draining"  # TERM: workers finish what they hold
    QUITTING = "quitting"  # INT, QUIT, or a stop that was hurried


@dataclasses.dataclass(frozen=True)
class WorkerView:
    """One worker at the moment of the snapshot; times are seconds of the monotonic clock."""

    pid: int
    age: int
    generation: int
    state: WorkerState
    since: float  # when it entered the state
    heartbeat: float  # its last sign of life, at least its fork
    is_due: bool = False  # it has served its time: to be drained as soon as a successor is ready
    was_aborted: bool = False  # its end began with SIGABRT, in whatever state it is now


class TemplateState(enum.Enum):
    """Where the process stands that a generation's workers are forked from."""

    MISSING = "missing"
    BOOTING = "booting"
    READY = "ready"
    ENDING = "ending"


@dataclasses.dataclass(frozen=True)
class TemplateView:
    """The template of one generation; without a view, workers are forked from the arbiter."""

    generation: int
    state: TemplateState
    since: float = 0.0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything that a decision depends on."""

    now: float
    phase: Phase
    target: int  # how many workers should serve
    generation: int  # what new workers belong to
    fallback: int | None  # the generation to keep until `generation` is proven
    proven: bool  # all workers of `generation` have been ready once
    workers: tuple[WorkerView, ...]
    slots_free: int
    spawn_not_before: float  # back-off
    timeout: float  # seconds, 0 = heartbeats are not watched
    graceful_timeout: float
    stop_deadline: float | None = None  # when a stop ends with SIGKILL
    fallback_target: int = 0  # how many workers of the fallback served when the reload began
    rolling: bool = False  # replace one by one, with one process more than before at the most
    boot_timeout: float = 0.0  # seconds from the fork to READY, 0 = only `timeout` is watched
    templates: tuple[TemplateView, ...] = ()


@dataclasses.dataclass(frozen=True)
class Spawn:
    """Fork one worker of a generation."""

    generation: int


@dataclasses.dataclass(frozen=True)
class Drain:
    """Tell a worker to finish what it holds (SIGTERM)."""

    pid: int


@dataclasses.dataclass(frozen=True)
class Quit:
    """Tell a worker to stop at once (SIGQUIT)."""

    pid: int


@dataclasses.dataclass(frozen=True)
class Abort:
    """Tell a worker that missed its heartbeat, or is not ready in time, to say where it is and die (SIGABRT)."""

    pid: int
    silent_s: float


@dataclasses.dataclass(frozen=True)
class Kill:
    """End a worker that did not go (SIGKILL)."""

    pid: int


@dataclasses.dataclass(frozen=True)
class Commit:
    """The current generation is proven: its predecessor is not needed any more."""


@dataclasses.dataclass(frozen=True)
class StartTemplate:
    """Fork the process that loads the application for a generation."""

    generation: int


@dataclasses.dataclass(frozen=True)
class AbortTemplate:
    """End a template that takes too long to load the application."""

    generation: int


Action = Spawn | Drain | Quit | Abort | Kill | Commit | StartTemplate | AbortTemplate


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do now, and when to look again if nothing happens before."""

    actions: tuple[Action, ...]
    wake_at: float | None


def decide(snapshot: Snapshot) -> Decision:
    """Decide what the snapshot asks for."""
    actions = (*_overdue(snapshot), *_late_templates(snapshot), *_wanted(snapshot))
    return Decision(actions, _wake_at(snapshot))


# -- workers that are late -------------------------------------------------------------------------


def _overdue(snapshot: Snapshot) -> Iterator[Action]:
    for worker in snapshot.workers:
        deadline = _deadline(worker, snapshot)
        if deadline is None or snapshot.now < deadline:
            continue
        if worker.state in SERVING:
            yield Abort(worker.pid, snapshot.now - worker.heartbeat)
        else:
            yield Kill(worker.pid)


def _late_templates(snapshot: Snapshot) -> Iterator[Action]:
    for view in snapshot.templates:
        deadline = _template_deadline(view, snapshot)
        if deadline is not None and snapshot.now >= deadline:
            yield AbortTemplate(view.generation)


def _template_deadline(view: TemplateView, snapshot: Snapshot) -> float | None:
    if view.state is TemplateState.BOOTING and snapshot.boot_timeout:
        return view.since + snapshot.boot_timeout
    if view.state is TemplateState.ENDING:
        return view.since + ABORT_GRACE_S
    return None


def _deadline(worker: WorkerView, snapshot: Snapshot) -> float | None:
    """Give the moment from which a worker is late in its state, or None if it can take its time."""
    if worker.state is WorkerState.KILLED:
        return None
    if worker.state is WorkerState.ABORTED:
        return worker.since + ABORT_GRACE_S
    if snapshot.stop_deadline is not None and worker.state not in SERVING:
        return snapshot.stop_deadline
    if worker.state is WorkerState.DRAINING or worker.state is WorkerState.QUITTING:
        # A draining worker has graceful_timeout for its last requests, even if that is longer than timeout.
        return worker.since + snapshot.graceful_timeout
    if worker.state is WorkerState.BOOTING and snapshot.boot_timeout:
        return worker.since + snapshot.boot_timeout
    return worker.heartbeat + snapshot.timeout if snapshot.timeout else None


# -- how many there should be ----------------------------------------------------------------------


def _wanted(snapshot: Snapshot) -> Iterator[Action]:
    serving = sorted(
        (worker for worker in snapshot.workers if worker.state in SERVING and not _is_late(worker, snapshot)),
        key=lambda worker: worker.age,
    )
    if snapshot.phase is Phase.DRAINING:
        yield from (Drain(worker.pid) for worker in serving)
    elif snapshot.phase is Phase.QUITTING:
        still_there = (worker for worker in snapshot.workers if worker.state in _CAN_BE_HURRIED)
        yield from (Quit(worker.pid) for worker in still_there if not _is_late(worker, snapshot))
    else:
        yield from _reconcile(snapshot, serving)


_CAN_BE_HURRIED: Final = frozenset({WorkerState.BOOTING, WorkerState.READY, WorkerState.DRAINING})


def _reconcile(snapshot: Snapshot, serving: list[WorkerView]) -> Iterator[Action]:
    current = [worker for worker in serving if worker.generation == snapshot.generation]
    kept = {snapshot.generation, snapshot.fallback}
    yield from (Drain(worker.pid) for worker in serving if worker.generation not in kept)
    if not snapshot.proven and _count_ready(current) >= snapshot.target:
        # The predecessors drain in the next round, when the commit has made them superfluous.
        yield Commit()
    elif snapshot.fallback is None:
        yield from _keep_up(snapshot, current)
    else:
        yield from _replace_fallback(snapshot, current, [w for w in serving if w.generation == snapshot.fallback])


def _keep_up(snapshot: Snapshot, current: list[WorkerView]) -> Iterator[Action]:
    """Hold the number of workers, and replace those that are due: first the successor, then the drain."""
    due = [worker for worker in current if worker.is_due and worker.state is WorkerState.READY]
    replaced = due[: max(0, _count_ready(current) - snapshot.target)]
    yield from (Drain(worker.pid) for worker in replaced)
    left = [worker for worker in current if worker not in replaced]
    successors = min(len(due) - len(replaced), max(1, snapshot.target // RECYCLED_SHARE))
    surplus = len(left) - snapshot.target - successors
    yield from _drain(left, surplus)
    yield from _spawn(snapshot, snapshot.generation, -surplus)


def _replace_fallback(
    snapshot: Snapshot, current: list[WorkerView], predecessors: list[WorkerView]
) -> Iterator[Action]:
    """Bring the next generation in: one worker proves that it can live, then the others follow."""
    assert snapshot.fallback is not None, "there is something to replace"
    ready = _count_ready(current)
    if ready == 0:
        # Nothing is known of the new ones yet: the old ones are held at their number whatever happens to them.
        missing = snapshot.fallback_target - len(predecessors)
        # A successor of a worker that was due when the reload came would keep the place of the one to be tried.
        yield from _drain(predecessors, -missing)
        if missing > 0:
            yield from _spawn(snapshot, snapshot.fallback, missing)
        else:
            yield from _spawn(snapshot, snapshot.generation, min(1 - len(current), _room(snapshot)))
        return
    if snapshot.rolling:
        superfluous = max(0, len(predecessors) - max(0, snapshot.target - ready))
        yield from (Drain(worker.pid) for worker in predecessors[:superfluous])
    yield from _spawn(snapshot, snapshot.generation, min(snapshot.target - len(current), _room(snapshot)))


def _drain(workers: list[WorkerView], count: int) -> Iterator[Action]:
    """Drain so many: rather workers that are not ready, then those that are due, and among equals the oldest."""
    candidates = sorted(workers, key=lambda worker: (worker.state is WorkerState.READY, not worker.is_due, worker.age))
    yield from (Drain(worker.pid) for worker in candidates[: max(0, count)])


def _room(snapshot: Snapshot) -> int:
    """Count the processes that a reload may still add; what drains is in memory, and counts."""
    if not snapshot.rolling:
        return snapshot.slots_free
    return max(snapshot.target, snapshot.fallback_target) + 1 - len(snapshot.workers)


def _spawn(snapshot: Snapshot, generation: int, missing: int) -> Iterator[Action]:
    missing -= _count_dying(snapshot, generation)
    if missing <= 0 or snapshot.now < snapshot.spawn_not_before:
        return
    template = next((view.state for view in snapshot.templates if view.generation == generation), None)
    if template is TemplateState.MISSING:
        yield StartTemplate(generation)
    elif template is None or template is TemplateState.READY:
        missing = min(missing, snapshot.slots_free)
        yield from (Spawn(generation) for _ in range(missing))


def _count_ready(workers: list[WorkerView]) -> int:
    return sum(worker.state is WorkerState.READY for worker in workers)


def _count_dying(snapshot: Snapshot, generation: int) -> int:
    """Count workers that an abort is ending: each keeps its place, so its hooks come before a successor's."""
    return sum(worker.generation == generation and _keeps_place(worker, snapshot) for worker in snapshot.workers)


def _keeps_place(worker: WorkerView, snapshot: Snapshot) -> bool:
    if worker.state in SERVING:
        return _is_late(worker, snapshot)  # It is aborted by this very decision.
    place_until = _place_until(worker)
    return worker.state is WorkerState.ABORTED or (place_until is not None and snapshot.now < place_until)


def _place_until(worker: WorkerView) -> float | None:
    """Give the moment from which a worker that was killed after its abort is replaced even if it is still there.

    SIGKILL ends it at once, unless it hangs in the kernel (state D), where it may stay for ever.
    """
    return worker.since + KILLED_GRACE_S if worker.state is WorkerState.KILLED and worker.was_aborted else None


def _is_late(worker: WorkerView, snapshot: Snapshot) -> bool:
    deadline = _deadline(worker, snapshot)
    return deadline is not None and snapshot.now >= deadline


# -- when to look again ----------------------------------------------------------------------------


def _wake_at(snapshot: Snapshot) -> float | None:
    moments = [_deadline(worker, snapshot) for worker in snapshot.workers]
    if snapshot.phase is Phase.RUNNING:
        moments.append(snapshot.spawn_not_before)
        moments.extend(_place_until(worker) for worker in snapshot.workers)
    moments.append(snapshot.stop_deadline)
    moments.extend(_template_deadline(view, snapshot) for view in snapshot.templates)
    # What is already overdue is acted upon now; it must not turn the wait into a spin.
    return _earliest(moment for moment in moments if moment is not None and moment > snapshot.now)


def _earliest(moments: Iterable[float]) -> float | None:
    return min(moments, default=None)


# -- back-off --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Backoff:
    """How many workers in a row died at once, and when the next may be forked."""

    deaths: int = 0
    not_before: float = 0.0


def backoff_after_death(backoff: Backoff, now: float, *, ready_for: float | None, delay_max: float) -> Backoff:
    """Count a worker that died unasked; `ready_for` is how long it had been ready, None if it never was."""
    if ready_for is not None and ready_for >= EARLY_DEATH_S:
        return Backoff()
    deaths = backoff.deaths + 1
    # The exponent is bounded as well, or a long night of deaths would make a number that no float holds.
    delay = 0.0 if deaths == 1 else min(BACKOFF_FIRST_S * 2.0 ** min(deaths - 2, 16), delay_max)
    return Backoff(deaths, now + delay)
